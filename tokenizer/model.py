"""The dual-vocabulary tokenizer (paper §3.2, Fig. 2): one tower, two taps, two residual quantizers, one decoder.

    image → layers 1…pixel_layer → z_pixel → pixel codes → decoder → reconstruction
                    └ layers …semantic_layer → z_semantic → semantic codes → remaining layers → pooled image feature

The quantized semantic features, not the continuous ones, run on through the tower, so that zero-shot classification
measures the codes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenizer.config import TokenizerConfig
from tokenizer.decoder import Decoder
from tokenizer.projection import PROJECTIONS
from tokenizer.quantizer import ResidualQuantizer
from tokenizer.tower import VisionTower, check_taps


class DualCodes(NamedTuple):
    pixel: Tensor  # int64[B, N, D]
    semantic: Tensor  # int64[B, N, D]


class Codebooks(NamedTuple):
    """Everything a language model needs of a tokenizer; G = 1 if shared over depth, else D."""

    pixel: Tensor  # float32[G, K, C]
    semantic: Tensor  # float32[G, K, C]


class TokenizerOutput(NamedTuple):
    reconstruction: Tensor  # float[B, 3, h, w], unbounded
    codes: DualCodes
    pixel_commitment: Tensor  # float[]
    semantic_commitment: Tensor  # float[]
    semantic_features: Tensor  # float[B, N, H], de-quantized, F of Eq. 4
    pooled: Tensor  # float[B, H], from the quantized semantic features


class DualTokenizer(nn.Module):
    """image ↔ (pixel codes, semantic codes)."""

    def __init__(self, config: TokenizerConfig, tower: VisionTower):
        super().__init__()
        check_taps(config, tower.num_layers)
        self.config, self.tower = config, tower
        project, width, code_dim = PROJECTIONS[config.projection], tower.width, config.pixel.code_dim
        self.pixel_in = project(width, code_dim)
        self.pixel_shortcut = project(width, code_dim) if config.pixel_shortcut_layer is not None else None
        self.pixel_quantizer = ResidualQuantizer(config.pixel)
        self.pixel_out = project(code_dim, width)
        self.semantic_in = project(width, code_dim)
        self.semantic_quantizer = ResidualQuantizer(config.semantic)
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

    def forward(self, pixel_values: Tensor) -> TokenizerOutput:
        """float[B, 3, h, w] in [−1, 1]; in training mode the codebooks are updated."""
        z_pixel, z_semantic = self._project(pixel_values)
        pixel = self.pixel_quantizer(z_pixel)
        semantic = self.semantic_quantizer(z_semantic)
        semantic_features = self.semantic_out(semantic.features)
        return TokenizerOutput(
            reconstruction=self.decoder(self.pixel_out(pixel.features)),
            codes=DualCodes(pixel.codes, semantic.codes),
            pixel_commitment=pixel.commitment,
            semantic_commitment=semantic.commitment,
            semantic_features=semantic_features,
            pooled=self._pool(semantic_features),
        )

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> DualCodes:
        """float[B, 3, h, w] in [−1, 1] → codes int64[B, N, D]; runs the tower up to the semantic tap only."""
        z_pixel, z_semantic = self._project(pixel_values)
        return DualCodes(self.pixel_quantizer.encode(z_pixel), self.semantic_quantizer.encode(z_semantic))

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
        return Codebooks(self.pixel_quantizer.stacked_codebooks(), self.semantic_quantizer.stacked_codebooks())

    def freeze(self) -> "DualTokenizer":
        """For use below a language model: no gradients, no codebook updates, evaluation mode."""
        self.pixel_quantizer.freeze()
        self.semantic_quantizer.freeze()
        return self.requires_grad_(False).eval()

    @classmethod
    def from_tower(cls, config: TokenizerConfig) -> "DualTokenizer":
        """A new tokenizer on the pretrained tower that `config.tower` names."""
        return cls(config, VisionTower.from_pretrained(config.tower, config.attention, config.image_size))

    @classmethod
    def from_pretrained(cls, folder: str) -> "DualTokenizer":
        from tokenizer.pretrained import load_tokenizer

        return load_tokenizer(folder)

    def save_pretrained(self, folder: str) -> None:
        from tokenizer.pretrained import save_tokenizer

        save_tokenizer(self, folder)

    def _project(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """What the two quantizers quantize, float[B, N, C] each."""
        config, taps = self.config, self._taps(pixel_values)
        z_pixel = self.pixel_in(taps[config.pixel_layer])
        if self.pixel_shortcut is not None:
            z_pixel = z_pixel + config.pixel_shortcut_weight * self.pixel_shortcut(taps[config.pixel_shortcut_layer])
        return z_pixel, self.semantic_in(taps[config.semantic_layer])

    def _taps(self, pixel_values: Tensor) -> dict[int | None, Tensor]:
        """The patches float[B, N, H] after each layer that is read."""
        layers = {self.config.pixel_shortcut_layer, self.config.pixel_layer, self.config.semantic_layer}
        hidden, done = self.tower.embed(pixel_values), 0
        taps: dict[int | None, Tensor] = {}
        for layer in sorted(layer for layer in layers if layer is not None):
            hidden = self.tower.run(hidden, done + 1, layer)
            taps[layer], done = self.tower.patches(hidden), layer
        return taps

    def _pool(self, semantic_features: Tensor) -> Tensor:
        last = self.tower.run(semantic_features, self.config.semantic_layer + 1, self.tower.num_layers)
        return self.tower.pool(last)
