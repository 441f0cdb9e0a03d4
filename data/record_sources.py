"""Documents of a file, one for each of its records: captioned pictures, conversations, interleaved documents, texts."""

from typing import Any

import numpy as np

from data.code_sources import choose_caption
from data.codes import CodeStore
from data.conversations import conversation_turns
from data.documents import (
    Document,
    ImageRef,
    caption_document,
    conversation_document,
    drawing_document,
    interleaved_document,
    text_document,
)
from data.image_library import ImageLibrary
from data.interleaved import interleaved_segments
from data.picture_files import PictureFiles
from data.records import Records
from data.source_config import SourceConfig
from data.vocabulary import Vocabulary


class RecordSource:
    """The records of a file, and where their images are."""

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, library: ImageLibrary):
        self.name = config.name or config.kind
        self.config, self.vocabulary, self.library = config, vocabulary, library
        self.stores: tuple[CodeStore | PictureFiles, ...] = tuple(
            s for s in (library.store, library.files) if s is not None
        )
        self.records = Records(config.path)

    def __len__(self) -> int:
        return len(self.records)

    def key(self, record: dict[str, Any], index: int) -> str:
        return str(record.get("id", index))


class CaptionRecords(RecordSource):
    """Pictures and their captions, `{"image": …, "caption": …}` or `"captions": […]`: understanding."""

    def pair(self, index: int, rng: np.random.Generator) -> tuple[ImageRef, str, str]:
        """Picture, caption and key of a record."""
        record = self.records[index]
        name, captions = record.get("image"), record.get("captions", [record.get("caption", "")])
        key = self.key(record, index)
        where = f"record {key!r} of {self.config.path!r}"
        if not isinstance(name, str) or not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise ValueError(f"{where} has no image, a name, with caption, a text, or captions, a list of texts")
        return self.library.find(name, where), choose_caption(captions, self.config, rng, where), key

    def document(self, index: int, rng: np.random.Generator) -> Document:
        image, caption, key = self.pair(index, rng)
        return caption_document(self.vocabulary, image, caption, key)


class DrawRecords(CaptionRecords):
    """The same records: generation."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        image, caption, key = self.pair(index, rng)
        is_dropped = rng.random() < self.config.caption_dropout
        return drawing_document(self.vocabulary, image, None if is_dropped else caption, key)


class ConversationSource(RecordSource):
    """Questions and answers about images."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        record = self.records[index]
        key = self.key(record, index)
        turns = conversation_turns(record, self.library, f"conversation {key!r} of {self.config.path!r}")
        return conversation_document(self.vocabulary, turns, key)


class InterleavedSource(RecordSource):
    """Texts and images as a page has them."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        record = self.records[index]
        key = self.key(record, index)
        segments = interleaved_segments(record, self.library, f"document {key!r} of {self.config.path!r}")
        return interleaved_document(self.vocabulary, segments, key, self.config.learn_images)


class TextSource(RecordSource):
    """Text alone."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        text = self.records[index].get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"document {index} of {self.config.path!r} has no text")
        return text_document(self.vocabulary, text, f"{self.config.path}:{index}")
