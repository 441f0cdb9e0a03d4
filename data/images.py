"""RGB pictures into float tensors and back: the only place that scales images (DESIGN.md §3).

`ImageTransform` makes the float32[3, h, w] in [−1, 1] that the tokenizer takes, `to_pil` the way back. What decodes the
files, `load_image`, is in data/decode.py; `from_array` takes what other libraries hold pictures in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.decode import MAX_PIXELS, load_image

__all__ = ["CROPS", "MAX_PIXELS", "ImageTransform", "from_array", "load_image", "to_pil"]

CROPS = ("center", "squash", "pad")


@dataclass(frozen=True)
class ImageTransform:
    """RGB picture → float32[3, size, size] in [−1, 1], by bicubic scaling that smooths when it shrinks.

    `center` keeps the middle square, `squash` ignores the proportions, `pad` adds white bars.
    """

    size: int
    crop: str = "center"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the image size must be at least 1, not {self.size}")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be one of {', '.join(CROPS)}, not {self.crop!r}")

    def __call__(self, image: Image.Image) -> Tensor:
        return _to_tensor(getattr(self, f"_{self.crop}")(image))

    def describe(self) -> str:
        """One line for the provenance of codes: the same line means the same pixels."""
        return f"rgb {self.size}x{self.size} {self.crop} bicubic [-1, 1]"

    def _center(self, image: Image.Image) -> Image.Image:
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return self._resize(image, (self.size, self.size), (left, top, left + side, top + side))

    def _squash(self, image: Image.Image) -> Image.Image:
        return self._resize(image, (self.size, self.size), (0, 0, *image.size))

    def _pad(self, image: Image.Image) -> Image.Image:
        scale = self.size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        square = Image.new("RGB", (self.size, self.size), "white")
        inner = self._resize(image, (width, height), (0, 0, *image.size))
        square.paste(inner, ((self.size - width) // 2, (self.size - height) // 2))
        return square

    def _resize(self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
        # Cropping inside the resize keeps a 1×10000 strip from being enlarged as a whole first.
        return image.resize(size, Image.Resampling.BICUBIC, box=box)


def _to_tensor(image: Image.Image) -> Tensor:
    """RGB picture → float32[3, h, w] in [−1, 1]."""
    array = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous() / 127.5 - 1


def to_pil(pixel_values: Tensor) -> Image.Image:
    """float[3, h, w] in [−1, 1] (clamped) → 8-bit RGB picture; NaN, which no level stands for, is a ValueError."""
    if pixel_values.isnan().any():
        raise ValueError("a picture holds NaN: the weights that made it are damaged, or its training diverged")
    scaled = (pixel_values.detach().float().clamp(-1, 1) + 1) * 127.5
    return Image.fromarray(scaled.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy())


def from_array(values: np.ndarray | Tensor) -> Image.Image:
    """A picture from uint8, or from floats in [0, 1]: NumPy's [h, w] or [h, w, C], PyTorch's [h, w] or [C, h, w].

    C is 1 (grey), 3 (RGB) or 4 (with alpha). ValueError says what else it is.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if array.ndim == 3 and isinstance(values, Tensor):
        array = array.transpose(1, 2, 0)
    shape = tuple(values.shape)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"an array of shape {shape} is no picture: give [h, w] or [h, w, 1 | 3 | 4], as a tensor [1 | 3 | 4, h, w]"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise ValueError(
                f"an array of {array.dtype} holds values from {array.min():.3g} to {array.max():.3g}: as a picture, "
                "floating-point values must lie in [0, 1]"
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no picture: give uint8, or floating-point values in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))
