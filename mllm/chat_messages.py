"""Chat messages in the form that transformers' chat models take → turns of texts and pictures.

    [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is this?"}]}]

PICTURE is a PIL image, a path, the bytes of a file or an array; `content` may be a text alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from data.images import from_array, load_image
from data.vocabulary import picture_first

ROLES = ("system", "user", "assistant")
Picture = Image.Image | str | Path | bytes | np.ndarray | Tensor
Message = Mapping[str, Any]


def open_picture(picture: Picture) -> Image.Image:
    """RGB; ValueError or FileNotFoundError says what is wrong with it."""
    if isinstance(picture, np.ndarray | Tensor):
        picture = from_array(picture)
    if not isinstance(picture, Image.Image | str | Path | bytes):
        raise ValueError(f"{type(picture).__name__} is no picture: give a PIL image, a path, bytes or an array.")
    return load_image(picture)


def turn(message: Message) -> tuple[str, list[str | Image.Image]]:
    """The role and the parts of one message, pictures opened."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise ValueError(f"a message has the role {role!r}: choose {', '.join(ROLES)}.")
    if isinstance(content, str):
        return role, [content]
    if not isinstance(content, list | tuple):
        raise ValueError(f"the content of a message is a {type(content).__name__}: give a text, or a list of parts.")
    parts = [_part(part) for part in content]
    return role, picture_first(parts) if role == "user" else parts


def _part(part: Any) -> str | Image.Image:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    for name in ("image", "path"):
        if kind == "image" and part.get(name) is not None:
            return open_picture(part[name])
    raise ValueError(
        f"a part of a message cannot be read ({str(part)[:80]}): give {{'type': 'text', 'text': …}} or "
        "{'type': 'image', 'image': a PIL image, a path, bytes or an array}."
    )
