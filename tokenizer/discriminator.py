"""The adversarial part of L_recon: a patch discriminator, its hinge loss and the generator's weight (paper Eq. 3).

As in the authors' released code: residual blocks with GroupNorm, where Isola et al. 2017 and Esser et al. 2021 have
BatchNorm. So a picture's score depends neither on its neighbours nor on the number of processes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AdversarialConfig:
    """λ_g·L_G; a weight of 0 trains without a discriminator. The other defaults are the released recipe's."""

    weight: float = 0.0  # released: 0.75, times the adaptive weight
    start: float = 0.025  # share of all steps if below 1, else a step; released: half an epoch of 20
    min_adaptive: float = 0.3
    max_adaptive: float = 10.0
    learning_rate: float | None = None  # null: the generator's
    base_channels: int = 64
    num_layers: int = 3

    def __post_init__(self) -> None:
        widths = [self.base_channels * min(2**n, 8) for n in range(self.num_layers)]
        if not widths or any(width < 2 or width % min(32, width // 2) for width in widths):
            raise ValueError(
                f"adversarial.base_channels={self.base_channels} must be a power of 2 from 2 up or a multiple of 32, "
                f"and num_layers={self.num_layers} at least 1"
            )
        if not (self.weight >= 0 and self.start >= 0 and 0 <= self.min_adaptive <= self.max_adaptive):
            raise ValueError(
                f"adversarial.weight={self.weight} and start={self.start} must be at least 0, and min_adaptive="
                f"{self.min_adaptive} at least 0 and at most max_adaptive={self.max_adaptive}"
            )


class PatchDiscriminator(nn.Module):
    """image float[B, 3, h, w] in [−1, 1] → logits float[B, 1, h / 2^L, w / 2^L]: is a patch real (> 0) or decoded?"""

    def __init__(self, base_channels: int = 64, num_layers: int = 3):
        super().__init__()
        widths = [base_channels * min(2**n, 8) for n in range(num_layers + 1)]
        strides = [2] * (num_layers - 1) + [1]
        self.layers = nn.Sequential(
            nn.Conv2d(3, base_channels, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            *(DownBlock(*sizes) for sizes in zip(widths[:-1], widths[1:], strides, strict=True)),
            nn.Conv2d(widths[-1], 1, 3, padding=1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class DownBlock(nn.Module):
    """GroupNorm → leaky ReLU → 3×3 conv with a stride, beside a 1×1 conv of the resized input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.norm = nn.GroupNorm(min(32, in_channels // 2), in_channels, eps=1e-6)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.leaky_relu(self.norm(x), 0.2))
        if h.shape[-2:] != x.shape[-2:]:
            x = F.interpolate(x, size=h.shape[-2:], mode="bilinear", align_corners=False)
        return h + self.shortcut(x)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from its logits on real and decoded pictures.

    Deviation: the hinge leaks (slope 0.01), as released, so that a discriminator that is sure still has a gradient.
    """
    return (F.leaky_relu(1 - real).mean() + F.leaky_relu(1 + fake).mean()) / 2


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor, config: AdversarialConfig) -> Tensor:
    """float[]: the ratio of both gradients at the decoder's last layer, within limits (Esser et al. 2021, Eq. 7).

    Neither part of L_recon can then drown the other, whatever the discriminator's scale.
    """
    ratio = torch.linalg.vector_norm(reconstruction_gradient) / (torch.linalg.vector_norm(adversarial_gradient) + 1e-4)
    return ratio.clamp(config.min_adaptive, config.max_adaptive)
