"""Size of a depth head (arXiv 2503.14324, section 3.3): the same structure serves the pixel and the semantic codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DepthHeadConfig:
    """A small transformer over depth, then one classifier per depth; its width is free of the LLM's."""

    num_layers: int = 3
    width: int = 1024
    num_heads: int = 16
    mlp_width: int = 4096

    def __post_init__(self) -> None:
        if min(self.num_layers, self.width, self.num_heads, self.mlp_width) < 1:
            raise ValueError(f"heads: every size must be at least 1, got {self}.")
        if self.width % self.num_heads:
            raise ValueError(f"heads: width={self.width} must be a multiple of num_heads={self.num_heads}.")
