"""PSNR and SSIM of reconstructions (paper Tab. 1), each per image and then averaged.

Images are rounded to the 256 levels that a file could hold before anything is measured. PSNR is of the mean squared
error of the image on [0, 1]; averaging errors over images before the logarithm would give another, lower number. SSIM
is that of Wang et al. 2004: 11×11 Gaussian window with σ = 1.5, only where it fits whole (no padding), biased
variances, K1 = 0.01, K2 = 0.03, the mean over positions and channels, as in pytorch_msssim.

One piece of arithmetic for NumPy and for torch, on whatever device: a batch is an array of either, and so is what is
measured of it. The tokenizer's evaluation uses it on the accelerator, `dualtoken score reconstruction` without torch.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_WINDOW, _SIGMA = 11, 1.5
_BELL = [math.exp(-((i - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for i in range(_WINDOW)]
_WEIGHTS = [height / sum(_BELL) for height in _BELL]
_C1, _C2 = 0.01**2, 0.03**2

Array = Any
"""numpy.ndarray or torch.Tensor."""


def from_pixel_values(pixel_values: Array) -> Array:
    """float[…] in [−1, 1], as models hold images → [0, 1], as the measures below want them."""
    return (pixel_values + 1) / 2


def psnr(reference: Array, images: Array) -> Array:
    """float[B, 3, h, w] in [0, 1], twice → float64[B] in dB; infinite where an image is its reference exactly."""
    reference, images = _eight_bit(reference, images)
    error = ((reference - images) ** 2).mean((1, 2, 3))
    if isinstance(error, np.ndarray):
        with np.errstate(divide="ignore"):
            return -10 * np.log10(error)
    return -10 * error.log10()


def ssim(reference: Array, images: Array) -> Array:
    """float[B, 3, h, w] in [0, 1], twice → float64[B]."""
    reference, images = _eight_bit(reference, images)
    if min(reference.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs images of at least {_WINDOW}×{_WINDOW} pixels, not {tuple(reference.shape[-2:])}")
    mean_x, mean_y = _blur(reference), _blur(images)
    variance_x = _blur(reference**2) - mean_x**2
    variance_y = _blur(images**2) - mean_y**2
    covariance = _blur(reference * images) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean((1, 2, 3))


def means(psnrs: Sequence[float], ssims: Sequence[float]) -> dict[str, Any]:
    """The figures of a set of images. One that is reproduced exactly has no finite PSNR: it is counted, and not in
    that mean, which is None where there is nothing else."""
    if not len(psnrs):
        raise ValueError("there are no images to compare")
    finite = [value for value in psnrs if math.isfinite(value)]
    return {
        "psnr": sum(finite) / len(finite) if finite else None,
        "ssim": sum(ssims) / len(ssims),
        "num_images": len(psnrs),
        "exact_images": len(psnrs) - len(finite),
    }


def score(batches: Iterable[tuple[Array, Array]]) -> dict[str, Any]:
    """Batches of (reference, images), float[B, 3, h, w] in [0, 1] → `means`, `per_image` (PSNR None: exact)."""
    psnrs: list[float] = []
    ssims: list[float] = []
    for reference, images in batches:
        psnrs += psnr(reference, images).tolist()
        ssims += ssim(reference, images).tolist()
    rows = [{"psnr": p if math.isfinite(p) else None, "ssim": s} for p, s in zip(psnrs, ssims, strict=True)]
    return {**means(psnrs, ssims), "per_image": rows}


def _eight_bit(reference: Array, images: Array) -> tuple[Array, Array]:
    """Rounded to multiples of 1/255, as float64: the differences of squares in SSIM cancel badly in float32."""
    if reference.shape != images.shape or reference.ndim != 4:
        raise ValueError(f"images of shape {tuple(images.shape)} cannot be compared to {tuple(reference.shape)}")
    for array in (reference, images):
        if (array != array).any():  # NaN alone differs from itself
            raise ValueError("images hold NaN: the weights that made them are damaged, or their training diverged")
        if array.min() < 0 or array.max() > 1:
            raise ValueError("images must be in [0, 1]: use from_pixel_values for those in [−1, 1], and clamp")
    first, second = ((_double(array) * 255).round() / 255 for array in (reference, images))
    return first, second


def _double(x: Array) -> Array:
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def _blur(x: Array) -> Array:
    """float64[B, c, h, w] → float64[B, c, h − 10, w − 10]: the window as two passes, rows and then columns."""
    height, width = (side - _WINDOW + 1 for side in x.shape[-2:])
    rows = sum(weight * x[..., i : i + width] for i, weight in enumerate(_WEIGHTS))
    return sum(weight * rows[..., i : i + height, :] for i, weight in enumerate(_WEIGHTS))  # type: ignore[index]
