"""Sizes and choices of the dual-codebook tokenizer (paper §3.2); the defaults are the paper's, at 384 px."""

from dataclasses import dataclass, field

BRANCHES = ("pixel", "semantic")


@dataclass(frozen=True)
class QuantizerConfig:
    """One residual quantizer. C = `code_dim`, K = `codebook_size`, D = `depth`."""

    code_dim: int = 32
    codebook_size: int = 16384
    depth: int = 8
    shared: bool = True  # one codebook for all depths, or one per depth
    ema_decay: float = 0.99
    ema_update: str = "per_forward"  # or "per_depth": a depth uses the codebook that the depth before it updated
    restart_below: float = 1.0  # entries whose average use per step falls below this take a vector of the batch

    def __post_init__(self) -> None:
        if min(self.code_dim, self.codebook_size, self.depth) < 1 or self.codebook_size > 2**16:
            raise ValueError(
                f"code_dim={self.code_dim} and depth={self.depth} of a quantizer must be at least 1, and "
                f"codebook_size={self.codebook_size} in 1 … 65,536, for codes are stored in 16 bits"
            )
        if not 0 <= self.ema_decay < 1 or not self.restart_below >= 0:
            raise ValueError(
                f"ema_decay={self.ema_decay} of a quantizer must be at least 0 and below 1, and "
                f"restart_below={self.restart_below} at least 0"
            )
        if self.ema_update not in ("per_forward", "per_depth"):
            raise ValueError(f"ema_update of a quantizer must be per_forward or per_depth, not {self.ema_update!r}")


@dataclass(frozen=True)
class DecoderConfig:
    """Convolutional decoder, taming-transformers style: ×2 per level after the first."""

    in_channels: int = 1024
    base_channels: int = 128
    channel_multipliers: list[int] = field(default_factory=lambda: [1, 1, 4, 4, 8])
    num_res_blocks: int = 2

    def __post_init__(self) -> None:
        if not self.channel_multipliers or min(self.base_channels, self.num_res_blocks + 1) < 1:
            raise ValueError(
                f"a decoder needs channel_multipliers, one a level, not {self.channel_multipliers}, at least one of "
                f"base_channels={self.base_channels} and num_res_blocks={self.num_res_blocks} of at least 0"
            )
        for channels in (self.in_channels, *(self.base_channels * m for m in self.channel_multipliers)):
            if channels < 4 or channels % min(32, channels // 4):  # decoder.group_norm
                raise ValueError(
                    f"a decoder cannot norm {channels} channels: in_channels, and base_channels times each of "
                    "channel_multipliers, must be multiples of 32, or of 4 below 128"
                )


@dataclass(frozen=True)
class TokenizerConfig:
    """Pixel and semantic codes from two layers of one SigLIP tower."""

    tower: str = "google/siglip-so400m-patch14-384"  # hub id or folder, loaded when training starts
    image_size: int | None = None  # null: the tower's own; another one interpolates its position embeddings
    crop: str = "center"  # how a picture becomes square, in training and in use: center | squash | pad
    pixel_layer: int = 6  # taps count the tower's layers from 1; 0 is its patch embedding
    semantic_layer: int = 26
    pixel_shortcut_layer: int | None = None  # its projected features are added to the pixel layer's (released: 4)
    pixel_shortcut_weight: float = 0.6
    single_codebook: bool = False  # ablation: the pixel branch's codes serve both objectives (VILA-U), at one layer
    separate_pixel_tower: bool = False  # ablation: the pixel branch has pixel_layer layers of its own, new, unshared
    projection: str = "linear"  # or "attention", before and after the quantizers, as released
    pixel: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(ema_update="per_depth"))
    semantic: QuantizerConfig = field(default_factory=QuantizerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    attention: str = "sdpa"  # of the tower; on CPUs "eager" is a third faster at 64 patches

    def __post_init__(self) -> None:
        if not 0 <= self.pixel_layer <= self.semantic_layer or self.semantic_layer == 0:
            taps = f"{self.pixel_layer}, {self.semantic_layer}"
            raise ValueError(f"taps must satisfy 0 <= pixel_layer <= semantic_layer, semantic_layer >= 1, not {taps}")
        shortcut = self.pixel_shortcut_layer
        if shortcut is not None and not 0 <= shortcut <= self.pixel_layer:
            raise ValueError(f"pixel_shortcut_layer must lie in 0 … pixel_layer, {self.pixel_layer}, not {shortcut}")
        if shortcut is not None and self.single_codebook:
            raise ValueError("single_codebook leaves no place for pixel_shortcut_layer, of which meaning knows nothing")
        if self.single_codebook and (
            self.pixel_layer != self.semantic_layer or self.pixel != self.semantic or self.separate_pixel_tower
        ):
            raise ValueError(
                "single_codebook needs pixel_layer = semantic_layer, pixel = semantic and no separate_pixel_tower: "
                "its codes are of one place and of one quantizer"
            )
        if self.projection not in ("linear", "attention"):
            raise ValueError(f"projection must be linear or attention, not {self.projection!r}")
        if self.crop not in ("center", "squash", "pad"):
            raise ValueError(f"crop must be center, squash or pad, not {self.crop!r}")
        if (self.pixel.depth, self.pixel.codebook_size, self.pixel.code_dim) != (
            self.semantic.depth,
            self.semantic.codebook_size,
            self.semantic.code_dim,
        ):
            raise ValueError("pixel and semantic quantizers must share depth, codebook_size and code_dim (paper §3.2)")
