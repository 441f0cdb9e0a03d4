"""The dual-vocabulary tokenizer (paper §3.2, Fig. 2): one tower, two taps, two residual quantizers, one decoder.

    image → layers 1…pixel_layer → z_pixel → pixel codes → decoder → reconstruction
                    └ layers …semantic_layer → z_semantic → semantic codes → remaining layers → pooled image feature

The quantized semantic features, not the continuous ones, run on through the tower, so that zero-shot classification
measures the codes.

Two variants that the paper compares with (Tab. 3, §4.1) are choices of the config: with `single_codebook` one
quantizer's codes are both the pixel and the semantic codes; with `separate_pixel_tower` the branches share no layer.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from tokenizer.codebook import keeping_dtype
from tokenizer.config import BRANCHES, TokenizerConfig
from tokenizer.decoder import Decoder
from tokenizer.projection import PROJECTIONS
from tokenizer.quantizer import ResidualQuantizer
from tokenizer.tower import VisionTower, check_taps

T = TypeVar("T")


class DualCodes(NamedTuple):
    pixel: Tensor  # int64[B, N, D]
    semantic: Tensor  # int64[B, N, D]


class Codebooks(NamedTuple):
    """Everything a language model needs of a tokenizer; G = 1 if shared over depth, else D."""

    pixel: Tensor  # float32[G, K, C]
    semantic: Tensor  # float32[G, K, C]
    pixel_out: nn.Module | None = None  # the projections after the quantizers, C → H, causal over positions
    semantic_out: nn.Module | None = None
    tokenizer_id: str | None = None


class TokenizerOutput(NamedTuple):
    """None is what a branch gives that was not run."""

    reconstruction: Tensor | None = None  # float[B, 3, h, w], unbounded
    pixel_codes: Tensor | None = None  # int64[B, N, D]
    semantic_codes: Tensor | None = None  # int64[B, N, D]
    pixel_commitment: Tensor | None = None  # float[]
    semantic_commitment: Tensor | None = None  # float[]; None too where the only quantizer's is the pixel branch's
    semantic_features: Tensor | None = None  # float[B, N, H], de-quantized, F of Eq. 4
    pooled: Tensor | None = None  # float[B, H], from the quantized semantic features


class DualTokenizer(nn.Module):
    """image ↔ (pixel codes, semantic codes)."""

    def __init__(self, config: TokenizerConfig, tower: VisionTower):
        super().__init__()
        check_taps(config, tower.num_layers)
        self.config, self.tower = config, tower
        self.pixel_tower = tower.new_below(config.pixel_layer) if config.separate_pixel_tower else None
        project, width, code_dim = PROJECTIONS[config.projection], tower.width, config.pixel.code_dim
        self.pixel_in = project(width, code_dim)
        self.pixel_shortcut = project(width, code_dim) if config.pixel_shortcut_layer is not None else None
        self.pixel_quantizer = ResidualQuantizer(config.pixel)
        self.pixel_out = project(code_dim, width)
        single = config.single_codebook
        self.semantic_in = self.pixel_in if single else project(width, code_dim)
        self.semantic_quantizer = self.pixel_quantizer if single else ResidualQuantizer(config.semantic)
        self.semantic_out = project(code_dim, width)
        self.decoder = Decoder(config.decoder, tower.width, tower.grid, tower.image_size)

    @property
    def image_size(self) -> int:
        return self.tower.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self.tower.grid

    @property
    def tokenizer_id(self) -> str:
        from tokenizer.pretrained import tokenizer_id

        return tokenizer_id(self)

    def forward(self, pixel_values: Tensor, branches: Collection[str] = BRANCHES) -> TokenizerOutput:
        """float[B, 3, h, w] in [−1, 1]; in training mode the codebooks of the `branches` that are run are updated."""
        quantized = self._quantize(self._vectors(pixel_values, branches), ResidualQuantizer.__call__)
        output: dict[str, Tensor] = {}
        if (pixel := quantized.get("pixel")) is not None:
            output |= {"pixel_codes": pixel.codes, "pixel_commitment": pixel.commitment}
            output["reconstruction"] = self.decoder(self.pixel_out(pixel.features))
        if (semantic := quantized.get("semantic")) is not None:
            output["semantic_codes"] = semantic.codes
            if semantic is not pixel:
                output["semantic_commitment"] = semantic.commitment
            output["semantic_features"] = self.semantic_out(semantic.features)
            output["pooled"] = self._pool(output["semantic_features"])
        return TokenizerOutput(**output)

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> DualCodes:
        """float[B, 3, h, w] in [−1, 1] → codes int64[B, N, D]; runs the tower up to the semantic tap only."""
        if not pixel_values.isfinite().all():  # the nearest entry to NaN would be some code or other
            raise ValueError("a picture holds values that are not finite: it has no codes")
        return DualCodes(**self._quantize(self._vectors(pixel_values), ResidualQuantizer.encode))

    @torch.no_grad()
    def decode(self, pixel_codes: Tensor) -> Tensor:
        """int64[B, N, D] → float[B, 3, h, w] in [−1, 1]; only pixel codes are drawn (paper §3.3)."""
        return self.decoder(self.pixel_out(self.pixel_quantizer.embed(pixel_codes))).clamp(-1, 1)

    @torch.no_grad()
    def pooled_features(self, semantic_codes: Tensor) -> Tensor:
        """int64[B, N, D] → float[B, H], the SigLIP image feature that the semantic codes carry."""
        return self._pool(self.semantic_out(self.semantic_quantizer.embed(semantic_codes)))

    def embed(self, codes: DualCodes) -> DualCodes:
        """Codes → summed code vectors float32[B, N, C] of each branch."""
        return DualCodes(self.pixel_quantizer.embed(codes.pixel), self.semantic_quantizer.embed(codes.semantic))

    def codebooks(self) -> Codebooks:
        pixel, semantic = self.pixel_quantizer.stacked_codebooks(), self.semantic_quantizer.stacked_codebooks()
        return Codebooks(pixel, semantic, self.pixel_out, self.semantic_out, self.tokenizer_id)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DualTokenizer":
        """Follows `.to(device)`, ignores `.half()`, which a model around it may be given: rounded weights give other
        codes than those that were learnt from."""
        return super()._apply(keeping_dtype(fn), recurse)

    def freeze(self) -> "DualTokenizer":
        """For use below a language model: no gradients, no codebook updates, evaluation mode.

        The decoder's convolutions are laid out channels-last: 12 to 15 % faster at the paper's size, on a CPU.
        """
        self.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pixel_quantizer.freeze()
        self.semantic_quantizer.freeze()
        return self.requires_grad_(False).eval()

    @classmethod
    def from_tower(cls, config: TokenizerConfig) -> "DualTokenizer":
        """A new tokenizer on the pretrained tower that `config.tower` names."""
        return cls(config, VisionTower.from_pretrained(config.tower, config.attention, config.image_size))

    @classmethod
    def from_pretrained(cls, name: str | Path, subfolder: str = "", **download: Any) -> "DualTokenizer":
        """Reads a folder of `save_pretrained`, or a repository of the hub (tokenizer/hub.py), on the CPU, frozen."""
        from tokenizer.pretrained import load_tokenizer

        return load_tokenizer(name, subfolder, **download)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """With a `dtype`, weights that decide no codes are stored in it."""
        from tokenizer.pretrained import save_tokenizer

        save_tokenizer(self, folder, dtype)

    def _vectors(self, pixel_values: Tensor, branches: Collection[str] = BRANCHES) -> dict[str, Tensor]:
        """What the quantizers quantize, float[B, N, C], of each of `branches`."""
        config, shortcut = self.config, self.config.pixel_shortcut_layer
        layers = {
            "pixel": {config.pixel_layer} if shortcut is None else {config.pixel_layer, shortcut},
            "semantic": {config.semantic_layer},
        }
        if self.pixel_tower is None:
            taps = self.tower.taps(pixel_values, set().union(*(layers[name] for name in branches)))
            pixel_taps = taps
        else:
            pixel_taps, taps = (
                tower.taps(pixel_values, layers[name]) if name in branches else {}
                for name, tower in (("pixel", self.pixel_tower), ("semantic", self.tower))
            )
        vectors = {}
        if "pixel" in branches:
            vectors["pixel"] = self.pixel_in(pixel_taps[config.pixel_layer])
            if self.pixel_shortcut is not None and shortcut is not None:
                added = self.pixel_shortcut(pixel_taps[shortcut])
                vectors["pixel"] = vectors["pixel"] + config.pixel_shortcut_weight * added
        if "semantic" in branches:
            vectors["semantic"] = self.semantic_in(taps[config.semantic_layer])
        return vectors

    def _quantize(self, vectors: dict[str, Tensor], quantize: Callable[[ResidualQuantizer, Tensor], T]) -> dict[str, T]:
        """`quantize` by each branch's quantizer; where both branches have the same one, once for both."""
        if self.config.single_codebook:
            return dict.fromkeys(vectors, quantize(self.pixel_quantizer, next(iter(vectors.values()))))
        quantizers = {"pixel": self.pixel_quantizer, "semantic": self.semantic_quantizer}
        return {name: quantize(quantizers[name], vector) for name, vector in vectors.items()}

    def _pool(self, semantic_features: Tensor) -> Tensor:
        last = self.tower.run(semantic_features, self.config.semantic_layer + 1, self.tower.num_layers)
        return self.tower.pool(last)
