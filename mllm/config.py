"""Configuration of the unified model (arXiv 2503.14324, sections 3.3 and 4.1); the defaults are the paper's."""

from dataclasses import dataclass, field

from heads.config import DepthHeadConfig
from tokenizer import DualTokenizer

VISUAL_INPUTS = ("both", "pixel", "semantic")
VISUAL_FEATURES = ("codebook", "post_quant")


@dataclass(frozen=True)
class LLMConfig:
    """The language model: pretrained weights from `path`, or a new Qwen2 of the sizes below (Qwen-2.5-3B's)."""

    path: str | None = None  # local folder or hub id of any Llama, Qwen2 or Qwen3 kind; the sizes are then its own
    hidden_size: int = 2048
    intermediate_size: int = 11008
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    max_position_embeddings: int = 32768
    rope_theta: float = 1e6
    tie_word_embeddings: bool = True
    attn_implementation: str = "auto"  # flash_attention_2 where CUDA and flash-attn are at hand, else sdpa
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for whole, part in (("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")):
            size, divisor = getattr(self, whole), getattr(self, part)
            if min(size, divisor) < 1 or size % divisor:
                raise ValueError(f"llm: {whole}={size} must be a multiple of {part}={divisor}.")


@dataclass(frozen=True)
class VisualSpec:
    """What the model must know of the tokenizer whose codes it reads and writes."""

    grid: tuple[int, int]  # patches (down, across), row-major
    depth: int
    codebook_size: int
    code_dim: int
    tokenizer_id: str

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D) of one image's codes in one codebook."""
        return self.num_patches, self.depth

    @classmethod
    def of(cls, tokenizer: DualTokenizer, tokenizer_id: str | None = None) -> "VisualSpec":
        """`tokenizer_id`, where it is known, saves the time to hash the weights."""
        quantizer = tokenizer.config.pixel
        return cls(
            grid=tokenizer.grid,
            depth=quantizer.depth,
            codebook_size=quantizer.codebook_size,
            code_dim=quantizer.code_dim,
            tokenizer_id=tokenizer_id or tokenizer.tokenizer_id,
        )


@dataclass(frozen=True)
class LossWeights:
    """Factors of the parts of Eq. 6; 1 is the paper."""

    text: float = 1.0
    pixel: float = 1.0
    semantic: float = 1.0
    z_loss: float = 0.0  # adds so much of (log Σ exp logits)² to −log P of every code, against logits that drift: 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.z_loss < 1:
            raise ValueError(f"loss_weights.z_loss={self.z_loss} must be at least 0 and below 1; 1e-5 is usual.")


@dataclass(frozen=True)
class UnifiedConfig:
    llm: LLMConfig = field(default_factory=LLMConfig)
    heads: DepthHeadConfig | None = field(default_factory=DepthHeadConfig)  # null: the model reads images, never draws
    visual_input: str = "both"  # which codes the LLM reads: both, pixel or semantic (the ablation of tables 2 and 4)
    visual_features: str = "codebook"  # codes as summed vectors, or as what the tokenizer's frozen, causal projections
    # make of these (post_quant)
    patch_positions: bool = False  # add learned row and column vectors to patches: small models from nothing gain by it
    visual_dropout: float = 0.0  # share of the generated images whose patches are hidden from the LLM in training
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.visual_input not in VISUAL_INPUTS:
            raise ValueError(f"visual_input={self.visual_input!r} is unknown: choose {', '.join(VISUAL_INPUTS)}.")
        if self.visual_features not in VISUAL_FEATURES:
            choices = ", ".join(VISUAL_FEATURES)
            raise ValueError(f"visual_features={self.visual_features!r} is unknown: choose {choices}.")
        if not 0 <= self.visual_dropout < 1:
            raise ValueError(f"visual_dropout={self.visual_dropout} must be at least 0 and below 1.")
