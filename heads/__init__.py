"""Hidden states -> codes: depth transformers, their fused cross-entropy, sampling (arXiv 2503.14324, section 3.3)."""
