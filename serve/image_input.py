"""Pictures inside a request: data: URLs and bare base64. Nothing is fetched.

`file:` URLs are read from one folder, where the server's owner has named one.
"""

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from data.decode import load_image
from serve.errors import ApiError

PARAM = "messages"


def read_picture(url: str, max_pixels: int, folder: Path | None) -> Image.Image:
    """RGB; ApiError says what is wrong with it."""
    try:
        return load_image(_source(url, folder), max_pixels)
    except (ValueError, OSError) as error:
        raise ApiError(400, f"a picture cannot be read: {error}", PARAM, "invalid_image") from error


def _source(url: str, folder: Path | None) -> bytes | Path:
    if url.startswith("data:"):
        header, comma, encoded = url.partition(",")
        if not comma or not header.endswith(";base64"):
            raise ValueError("a data: URL must be data:image/TYPE;base64,DATA")
        return _decoded(encoded)
    if url.startswith("file:"):
        return _inside(url, folder)
    if "://" in url[:32]:
        raise ValueError("this server fetches nothing: send the picture itself as data:image/TYPE;base64,DATA")
    return _decoded(url)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("its base64 is damaged") from error


def _inside(url: str, folder: Path | None) -> Path:
    if folder is None:
        raise ValueError("file: URLs are not allowed: start the server with --image-folder DIR")
    path = Path(unquote(urlsplit(url).path)).resolve()  # links are followed before the folder is compared
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError("there is no such file in the server's folder of images")
    return path
