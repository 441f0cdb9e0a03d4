"""Training: engines, stages, checkpoints. The only package that may import every other one."""
