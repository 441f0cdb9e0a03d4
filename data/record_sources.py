"""Documents of a file, one for each of its records: conversations, interleaved documents, texts."""

from typing import Any

import numpy as np

from data.conversations import conversation_turns
from data.documents import Codes, Document, conversation_document, interleaved_document, text_document
from data.image_library import ImageLibrary
from data.interleaved import interleaved_segments
from data.records import Records
from data.source_config import SourceConfig
from data.vocabulary import Vocabulary


class RecordSource:
    """The records of a file, and where their images are."""

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, library: ImageLibrary):
        self.name = config.name or config.kind
        self.config, self.vocabulary, self.library = config, vocabulary, library
        self.stores: tuple[Codes, ...] = tuple(s for s in (library.store, library.files) if s is not None)
        self.records = Records(config.path)

    def __len__(self) -> int:
        return len(self.records)

    def key(self, record: dict[str, Any], index: int) -> str:
        return str(record.get("id", index))


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
