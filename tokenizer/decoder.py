"""Convolutional decoder from de-quantized pixel features to the image (paper §3.2; Esser et al. 2021).

map[B, H, h, w] → bilinear resize to image_size / 2^(levels − 1) → 1×1/3×3 stem → residual blocks, ×2 a level → RGB
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.config import DecoderConfig


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm → SiLU → conv, twice, beside a 1×1 shortcut where the width changes; `kernel` is the first conv's."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3):
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of a map float[B, ch, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)  # [B, 1, h·w, ch]
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.squeeze(1).transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Nearest ×2 and a 3×3 conv."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Decoder(nn.Module):
    """features float[B, N, H] on a `grid` → image float[B, 3, image_size, image_size], unbounded."""

    def __init__(self, config: DecoderConfig, in_width: int, grid: tuple[int, int], image_size: int):
        super().__init__()
        multipliers = config.channel_multipliers
        scale = 2 ** (len(multipliers) - 1)
        if image_size % scale:
            raise ValueError(f"image size {image_size} is not a multiple of the decoder's scale {scale}")
        self.grid, self.start_size = grid, image_size // scale
        channels = config.base_channels * multipliers[-1]
        self.stem = nn.Sequential(
            ResidualBlock(in_width, config.in_channels, kernel=1),
            nn.Conv2d(config.in_channels, channels, 3, padding=1),
            ResidualBlock(channels, channels),
            SpatialAttention(channels),
            ResidualBlock(channels, channels),
        )
        levels: list[nn.Module] = []
        for level in reversed(range(len(multipliers))):
            out_channels = config.base_channels * multipliers[level]
            for _ in range(config.num_res_blocks + 1):
                levels.append(ResidualBlock(channels, out_channels))
                channels = out_channels
                if level == len(multipliers) - 1:  # attention at the lowest resolution only
                    levels.append(SpatialAttention(channels))
            if level:
                levels.append(Upsample(channels))
        self.levels = nn.Sequential(*levels)
        self.head = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        x = features.transpose(1, 2).reshape(features.shape[0], -1, *self.grid)
        if self.grid != (self.start_size, self.start_size):  # patch 14 at 384 px: 27×27, but the decoder ends at 24·16
            x = F.interpolate(x, size=(self.start_size, self.start_size), mode="bilinear", align_corners=False)
        return self.head(self.levels(self.stem(x)))
