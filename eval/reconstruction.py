"""PSNR and SSIM of reconstructions (paper Tab. 1), each per image and then averaged.

Images are rounded to the 256 levels that a file could hold before anything is measured. PSNR is of the mean squared
error of the image on [0, 1]; averaging errors over images before the logarithm would give another, lower number. SSIM
is that of Wang et al. 2004: 11×11 Gaussian window with σ = 1.5, only where it fits whole (no padding), biased
variances, K1 = 0.01, K2 = 0.03, the mean over positions and channels, as in pytorch_msssim.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def from_pixel_values(pixel_values: Tensor) -> Tensor:
    """float[…] in [−1, 1], as models hold images → [0, 1], as the measures below want them."""
    return (pixel_values + 1) / 2


def psnr(reference: Tensor, images: Tensor) -> Tensor:
    """float[B, 3, h, w] in [0, 1], twice → float64[B] in dB; infinite where an image is its reference exactly."""
    reference, images = _eight_bit(reference, images)
    error = (reference - images).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(reference: Tensor, images: Tensor) -> Tensor:
    """float[B, 3, h, w] in [0, 1], twice → float64[B]."""
    reference, images = _eight_bit(reference, images)
    if min(reference.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs images of at least {_WINDOW}×{_WINDOW} pixels, not {tuple(reference.shape[-2:])}")
    mean_x, mean_y = _blur(reference), _blur(images)
    variance_x = _blur(reference.square()) - mean_x.square()
    variance_y = _blur(images.square()) - mean_y.square()
    covariance = _blur(reference * images) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def score(batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Batches of (reference, images), float[B, 3, h, w] in [0, 1] → `psnr`, `ssim`, `per_image`, `num_images`."""
    all_psnr: list[float] = []
    all_ssim: list[float] = []
    for reference, images in batches:
        all_psnr += psnr(reference, images).tolist()
        all_ssim += ssim(reference, images).tolist()
    if not all_psnr:
        raise ValueError("there are no images to compare")
    return {
        "psnr": sum(all_psnr) / len(all_psnr),
        "ssim": sum(all_ssim) / len(all_ssim),
        "num_images": len(all_psnr),
        "per_image": [{"psnr": p, "ssim": s} for p, s in zip(all_psnr, all_ssim, strict=True)],
    }


def _eight_bit(reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded to multiples of 1/255, as float64: the differences of squares in SSIM cancel badly in float32."""
    if reference.shape != images.shape or reference.ndim != 4:
        raise ValueError(f"images of shape {tuple(images.shape)} cannot be compared to {tuple(reference.shape)}")
    for tensor in (reference, images):
        if tensor.isnan().any():
            raise ValueError("images hold NaN: the weights that made them are damaged, or their training diverged")
        if tensor.min() < 0 or tensor.max() > 1:
            raise ValueError("images must be in [0, 1]: use from_pixel_values for those in [−1, 1], and clamp")
    return tuple((tensor.double() * 255).round() / 255 for tensor in (reference, images))  # type: ignore[return-value]


def _blur(x: Tensor) -> Tensor:
    """float64[B, c, h, w] → float64[B, c, h − 10, w − 10]: the window as two passes, rows and then columns."""
    places = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    weights = torch.exp(-places.square() / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).repeat(x.shape[1], 1, 1, 1)  # float64[c, 1, 1, 11]
    rows = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])
