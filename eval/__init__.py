"""Benchmarks and scorers: inference writes official submission files, scorers read them and know nothing of a model."""
