"""Pictures from anywhere into float tensors: the only place that decodes and scales images (DESIGN.md §3, §9).

`load_image` gives an RGB picture whatever the file was: alpha composited on white, EXIF orientation applied, CMYK,
palette and 16-bit modes converted, the decoded size bounded. `ImageTransform` makes the float32[3, h, w] in [−1, 1]
that the tokenizer takes, `to_pil` the way back.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 64 * 1024 * 1024
"""Larger pictures are refused before they are decoded: a few kilobytes of PNG can unpack to gigabytes."""

CROPS = ("center", "squash", "pad")
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def load_image(source: str | Path | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a file, the bytes of a file, or an open picture to RGB; ValueError says what is wrong with it."""
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the given picture", max_pixels)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), f"{len(source)} bytes of image data", max_pixels)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no image {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an image")
    with path.open("rb") as file:
        return _decode(file, str(path), max_pixels)


def _decode(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    try:
        with Image.open(file) as image:
            _check_size(image, name, max_pixels)  # the header is read, the picture not yet decoded
            image.load()
            return _to_rgb(image, name, max_pixels)
    except ValueError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is higher than ours and tells no size
        raise ValueError(f"{name} has far more than the limit of {max_pixels} pixels; scale it down first") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} cannot be read as an image: its format is unknown or its start missing") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, … on broken input
        raise ValueError(f"{name} cannot be read as an image ({type(error).__name__}: {error})") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width}×{image.height}"
        raise ValueError(f"{name} has {size} pixels, more than the limit of {max_pixels}; scale it down first")


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image, name, max_pixels)
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name} holds 32-bit pixels, whose range is not known; convert it to 8 bits first")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError(f"{name} holds floating-point pixels, whose range is not known; convert it to 8 bits first")
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        layer = image.convert("RGBA")
    except ValueError as error:
        raise ValueError(f"{name} has pixels of mode {image.mode}, which cannot become RGB ({error})") from error
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB")


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
