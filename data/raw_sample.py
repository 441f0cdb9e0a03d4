"""One raw sample, before and after decoding: the shape into which every reader brings its format.

`RawPart` is cheap: bytes or names of files. `decode` turns it into a `RawSample` or says in a ValueError what is wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from data.decode import IMAGE_ENDINGS, load_image


@dataclass(frozen=True)
class RawSample:
    key: str
    image: Image.Image
    """RGB."""
    caption: str
    metadata: dict[str, Any]
    """Its JSON; besides, `cls` where a file of that ending gives a class, and `folder`, the name of its folder."""
    shard: str
    """The tar, folder or data set it came from."""


MAX_BYTES = 1 << 28
"""Longer members of a tar are not read: a few megabytes of gzip can unpack to many gigabytes."""


class FileSlice(NamedTuple):
    """Bytes of an uncompressed tar that are read when they are asked for; ValueError if they are too many."""

    path: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        if self.size > MAX_BYTES:
            raise ValueError(f"a file of it has {self.size} bytes, more than the limit of {MAX_BYTES}")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


File = bytes | Path | FileSlice


@dataclass(frozen=True)
class RawPart:
    """One sample before decoding: its files by ending, and what a table says about it."""

    key: str
    shard: str
    files: Mapping[str, File]
    needs_caption: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)


def decode(part: RawPart) -> RawSample:
    image = next((file for ending, file in part.files.items() if ending.split(".")[-1] in IMAGE_ENDINGS), None)
    if image is None:
        raise ValueError(f"it has no image (only {', '.join(sorted(part.files)) or 'nothing'})")
    texts = {kind: _text(part.files[kind]) for kind in ("txt", "json", "cls") if kind in part.files}
    read = json.loads(texts.get("json", "{}"))
    if not isinstance(read, dict):
        raise ValueError("its json is not an object")
    metadata = {**part.metadata, **read}
    if "cls" in texts:
        metadata["cls"] = int(texts["cls"])
    if "/" in part.key:
        metadata.setdefault("folder", part.key.split("/")[-2])
    if isinstance(captions := metadata.get("captions"), list):
        metadata["captions"] = [text for text in captions if text is not None]
    caption = texts["txt"] if "txt" in texts else metadata.get("caption")
    caption = "" if caption is None else caption  # a null is what tables have where there is none
    _check(part, caption, metadata)
    content = image.read_bytes() if isinstance(image, FileSlice) else image
    return RawSample(part.key, load_image(content), caption.strip(), metadata, part.shard)


def _check(part: RawPart, caption: Any, metadata: Mapping[str, Any]) -> None:
    """What a code store cannot hold, or what no stage could use, is refused here, where shard and key are named."""
    conversations, captions = metadata.get("conversations"), metadata.get("captions")
    if conversations is not None and not isinstance(conversations, list):
        raise ValueError("its conversations are no list of messages")
    if captions is not None and not (isinstance(captions, list) and all(isinstance(text, str) for text in captions)):
        raise ValueError("its captions are no list of texts")
    has_text = isinstance(caption, str) and bool(caption.strip() or captions or conversations)
    if not isinstance(caption, str) or (part.needs_caption and not has_text):
        raise ValueError("it has no caption (neither txt nor a caption in json)")
    "".join([part.key, caption, *(captions or [])]).encode()  # lone surrogates are a UnicodeEncodeError, a ValueError


def _text(file: File) -> str:
    return (file if isinstance(file, bytes) else file.read_bytes()).decode("utf-8-sig")
