"""Picture files from anywhere to RGB pictures: the only place that decodes (DESIGN.md §9). It needs no torch.

`load_image` gives an RGB picture whatever the file was: alpha composited on white, EXIF orientation applied, CMYK,
palette and 16-bit modes converted, the decoded size bounded.
"""

import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
"""Of files that are taken for pictures, in lower case: the only list of them."""

MAX_PIXELS = 64 * 1024 * 1024
"""Larger pictures are refused before they are decoded: a few kilobytes of PNG can unpack to gigabytes."""

_USUAL_FORMATS = ("JPEG", "PNG", "WEBP")
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
        with _open(file) as image:
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


def _open(file: IO[bytes]) -> Image.Image:
    """The usual formats first: Pillow asks some dozen others before WebP, a quarter of what 64 px cost."""
    try:
        return Image.open(file, formats=_USUAL_FORMATS)
    except UnidentifiedImageError:
        return Image.open(file)


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
