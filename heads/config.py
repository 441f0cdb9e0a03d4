"""Size of a depth head (arXiv 2503.14324, section 3.3): the same structure serves the pixel and the semantic codes."""

from dataclasses import dataclass

CODE_EMBEDDINGS = ("codebook", "learned", "learned_per_depth")


@dataclass(frozen=True)
class DepthHeadConfig:
    """A small transformer over depth, then one classifier per depth; its width is free of the LLM's."""

    num_layers: int = 3
    width: int = 1024
    num_heads: int = 16
    mlp_width: int = 4096
    mlp_per_depth: bool = False  # each depth its own perceptron weights, as in moshi
    code_embedding: str = "codebook"  # what a head reads of earlier codes: the tokenizer's frozen vectors (the paper),
    # or its own table of K × width, learned: one for all depths, or `learned_per_depth`
    gradient_checkpointing: bool = False  # recompute each layer for its backward pass

    def __post_init__(self) -> None:
        if min(self.num_layers, self.width, self.num_heads, self.mlp_width) < 1:
            raise ValueError(f"heads: every size must be at least 1, got {self}.")
        if self.width % self.num_heads:
            raise ValueError(f"heads: width={self.width} must be a multiple of num_heads={self.num_heads}.")
        if self.code_embedding not in CODE_EMBEDDINGS:
            choices = ", ".join(CODE_EMBEDDINGS)
            raise ValueError(f"heads: code_embedding={self.code_embedding!r} is unknown: choose {choices}.")
