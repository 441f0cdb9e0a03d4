"""LLaVA-1.5 conversations, as turns with images in their places.

    [{"id": …, "image": KEY or [KEY, …], "conversations": [{"from": "human"|"gpt", "value": "<image>\\nquestion"}]}]

Each `<image>` stands for the next name of "image", a key of the code store or a picture file; without images, "image"
is absent. An `<image>` in what "gpt" says is an image to draw.
"""

from collections.abc import Iterator
from typing import Any

from data.documents import ImageRef, Turn
from data.image_library import ImageLibrary
from data.vocabulary import picture_first

IMAGE_MARK = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def conversation_turns(record: dict[str, Any], library: ImageLibrary, where: str) -> list[Turn]:
    """The turns of a record; ValueError with `where` in it if the record cannot be used."""
    messages = record.get("conversations")
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and str(m.get("from")) in ROLES and isinstance(m.get("value"), str) for m in messages
    ):
        raise ValueError(f"{where} is no list of messages with from (human or gpt) and value")
    keys = record.get("image") or []
    keys = keys if isinstance(keys, list) else [keys]
    num_marks = sum(m["value"].count(IMAGE_MARK) for m in messages)
    if num_marks != len(keys):
        raise ValueError(f"{where} names {len(keys)} images but marks {num_marks} places with {IMAGE_MARK}")
    if not any(ROLES[m["from"]] == "assistant" and m["value"].strip() for m in messages):
        raise ValueError(f"{where} has no answer")
    images = iter([library.find(str(key), where) for key in keys])
    return [Turn(ROLES[m["from"]], _segments(m["value"], ROLES[m["from"]], images)) for m in messages]


def _segments(value: str, role: str, images: Iterator[ImageRef]) -> list[str | ImageRef]:
    """Text with each mark replaced by the next image."""
    segments: list[str | ImageRef] = []
    for place, text in enumerate(value.strip().split(IMAGE_MARK)):
        segments += [text] if place == 0 else [next(images), text]
    return [segment for segment in (picture_first(segments) if role == "user" else segments) if segment != ""]
