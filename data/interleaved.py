"""Interleaved documents, texts and images in their order, in the two public layouts.

OBELICS: two lists side by side, of which each place holds a text or an image.

    {"id": …, "texts": ["A cat.", null, "It sleeps."], "images": [null, "cat.jpg", null]}

MMC4: sentences, and images that stand before the sentence they belong to.

    {"text_list": ["A cat.", "It sleeps."], "image_info": [{"image_name": "cat.jpg", "matched_text_index": 1}]}
"""

from typing import Any

from data.documents import ImageRef
from data.image_library import ImageLibrary

BETWEEN_PARAGRAPHS = "\n\n"  # of OBELICS, whose texts keep their own line breaks
BETWEEN_SENTENCES = " "  # of MMC4


def interleaved_segments(record: dict[str, Any], library: ImageLibrary, where: str) -> list[str | ImageRef]:
    """The segments of a record; ValueError with `where` in it if the record cannot be used."""
    if isinstance(record.get("texts"), list) and isinstance(record.get("images"), list):
        segments = _obelics(record["texts"], record["images"], library, where)
    elif isinstance(record.get("text_list"), list) and isinstance(record.get("image_info"), list):
        segments = _mmc4(record["text_list"], record["image_info"], library, where)
    else:
        raise ValueError(f"{where} has neither the lists texts and images nor text_list and image_info")
    if not any(isinstance(segment, ImageRef) or segment.strip() for segment in segments):
        raise ValueError(f"{where} is empty")
    return segments


def _obelics(texts: list[Any], images: list[Any], library: ImageLibrary, where: str) -> list[str | ImageRef]:
    if len(texts) != len(images):
        raise ValueError(f"{where} has {len(texts)} texts beside {len(images)} images: one of each pair is null")
    segments: list[str | ImageRef] = []
    for place, (text, image) in enumerate(zip(texts, images, strict=True)):
        if isinstance(text, str) and image is None:
            between = BETWEEN_PARAGRAPHS if segments and isinstance(segments[-1], str) else ""
            segments.append(between + text)
        elif isinstance(image, str) and text is None:
            segments.append(library.find(image, where))
        else:
            raise ValueError(f"{where} has not one text or one image name at place {place}")
    return segments


def _mmc4(texts: list[Any], images: list[Any], library: ImageLibrary, where: str) -> list[str | ImageRef]:
    before: dict[int, list[ImageRef]] = {}
    for info in images:
        name, place = (info.get("image_name"), info.get("matched_text_index")) if isinstance(info, dict) else (0, 0)
        if not isinstance(name, str) or not isinstance(place, int) or not 0 <= place < len(texts):
            raise ValueError(f"{where} has an image without image_name or a matched_text_index among its texts")
        before.setdefault(place, []).append(library.find(name, where))
    segments: list[str | ImageRef] = []
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{where} has a text_list with something else than texts")
        segments += before.get(place, [])
        between = BETWEEN_SENTENCES if segments and isinstance(segments[-1], str) else ""
        segments.append(between + text)
    return segments
