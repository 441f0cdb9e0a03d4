"""Training loss of the tokenizer (paper Eq. 1–4).

    L = λ1·L_recon + λ2·L_sem + λ3·(L_c,pixel + L_c,semantic)

L_recon = ‖x̂ − x‖² + λ_p·LPIPS + λ_g·L_G (Eq. 3). L_sem keeps the semantic features near the frozen tower's (Eq. 4).
Deviation: L_sem acts on the *de-quantized* features and on the pooled output, as (MSE − cosine), as the authors'
released code does; with the paper's bare MSE on continuous features nothing would tie the codes to language.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.model import TokenizerOutput
from tokenizer.perceptual import build_lpips
from tokenizer.tower import VisionTower


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weights; the defaults are the released recipe's. 0 leaves a part out of the sum. λ_g: `AdversarialConfig`."""

    reconstruction: float = 5.0
    perceptual: float = 1.0
    perceptual_weights: str | None = None  # file of torchvision's VGG16; null: torchvision's cache, or a download
    semantic: float = 5.0
    pooled: float = 1.0
    commitment: float = 5.0

    @property
    def branches(self) -> list[str]:
        """Those that any loss but their commitment asks for; the other one need not be run."""
        pixel, semantic = self.reconstruction or self.perceptual, self.semantic or self.pooled
        return [name for name, wanted in (("pixel", pixel), ("semantic", semantic)) if wanted]


class Reference(NamedTuple):
    """What the untouched tower says about the batch (F0 of Eq. 4)."""

    features: Tensor  # float[B, N, H] after the semantic layer
    pooled: Tensor  # float[B, H]


class TokenizerLoss(nn.Module):
    """`forward` returns the total to minimise and each unweighted part, for the log."""

    def __init__(self, config: TokenizerLossConfig, reference_tower: VisionTower, semantic_layer: int):
        super().__init__()
        self.config, self.semantic_layer = config, semantic_layer
        self.reference_tower = reference_tower.requires_grad_(False).eval()
        self.perceptual = build_lpips(config.perceptual_weights) if config.perceptual > 0 else None

    def forward(self, output: TokenizerOutput, pixel_values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the branches that were run; float[B, 3, h, w] in [−1, 1]."""
        weights, parts = self.config, {}
        if output.reconstruction is not None:
            parts["reconstruction"] = F.mse_loss(output.reconstruction, pixel_values)
            if self.perceptual is not None:
                parts["perceptual"] = self.perceptual(output.reconstruction, pixel_values).mean()
        if output.semantic_features is not None and output.pooled is not None:
            reference = self.reference(pixel_values)
            parts["semantic"] = _distance(output.semantic_features, reference.features)
            parts["pooled"] = _distance(output.pooled, reference.pooled)
        total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        for name in ("pixel_commitment", "semantic_commitment"):
            commitment = getattr(output, name)
            if commitment is not None:
                parts[name] = commitment
                total = total + weights.commitment * commitment
        return total, parts

    def reconstruction_loss(self, parts: dict[str, Tensor]) -> Tensor:
        """What the adversarial part is weighed against (float[], from the parts of `forward`): MSE + λ_p·LPIPS.

        As released: the MSE without its weight, and none of the losses that the decoder's last layer does not see.
        """
        if "perceptual" in parts:
            return parts["reconstruction"] + self.config.perceptual * parts["perceptual"]
        return parts["reconstruction"]

    @torch.no_grad()
    def reference(self, pixel_values: Tensor) -> Reference:
        tower = self.reference_tower
        features = tower.run(tower.embed(pixel_values), 1, self.semantic_layer)
        pooled = tower.pool(tower.run(features, self.semantic_layer + 1, tower.num_layers))
        return Reference(tower.patches(features), pooled)

    def train(self, mode: bool = True) -> "TokenizerLoss":
        """The reference and the perceptual network stay in evaluation mode."""
        return super().train(False)


def _distance(features: Tensor, reference: Tensor) -> Tensor:
    """MSE − cosine over the last dimension; ≥ −1, with equality at the reference."""
    return F.mse_loss(features, reference) - F.cosine_similarity(features, reference, dim=-1).mean()
