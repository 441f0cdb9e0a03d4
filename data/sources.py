"""Sources of training documents, each of a documented format.

`caption` and `draw` read a code store: its images with their captions, in either direction. `conversation` reads
LLaVA-1.5 JSON (data/conversations.py), whose images are keys of a code store. `text` reads `.txt`, a document a line,
or `.json` and `.jsonl` records with a field "text".

A source is a length and `document(index, rng)`, which depends on nothing else: any document can be made again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.codes import CodeStore
from data.conversations import conversation_turns
from data.documents import Document, ImageRef, caption_document, conversation_document, drawing_document, text_document
from data.vocabulary import Vocabulary


@dataclass(frozen=True)
class SourceConfig:
    """One source of the mixture."""

    kind: str  # caption | draw | conversation | text
    codes: str = ""  # folder of the code store
    path: str = ""  # file of the conversations or texts
    weight: float = 1.0  # share of the documents, relative to the other sources
    caption_dropout: float = 0.0  # share of the drawings without a caption, for classifier-free guidance
    balance: str = ""  # metadata keys such as "concept,style": a document per value, its image drawn among its own
    caption_choice: str = "all"  # all: another phrasing each time; first: the canonical one
    num_documents: int = 0  # only so many, evenly spaced, such as a few to overfit on; 0: all
    name: str = ""  # in logs; the kind if empty

    def __post_init__(self) -> None:
        if self.kind not in SOURCES:
            raise ValueError(f"source kind {self.kind!r} is unknown: choose among {', '.join(SOURCES)}")
        if self.caption_choice not in ("all", "first"):
            raise ValueError(f"caption_choice={self.caption_choice!r} of a {self.kind} source: choose all or first")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout={self.caption_dropout} of a {self.kind} source is not between 0 and 1")
        if self.caption_dropout and self.kind != "draw":
            raise ValueError(f"caption_dropout is for draw sources, not for {self.kind}: remove it")
        if self.balance and self.kind not in ("caption", "draw"):
            raise ValueError(f"balance is for caption and draw sources, not for {self.kind}: remove it")
        if self.num_documents < 0:
            raise ValueError(f"num_documents={self.num_documents} of a {self.kind} source is negative")
        if self.weight < 0:
            raise ValueError(f"weight={self.weight} of a {self.kind} source is negative")
        if self.kind != "text" and not self.codes:
            raise ValueError(f"a {self.kind} source needs codes=, the folder that `dualtoken pretokenize` wrote")
        if self.kind in ("conversation", "text") and not self.path:
            raise ValueError(f"a {self.kind} source needs path=, the file of its documents")


class Source(Protocol):
    name: str

    @property
    def store(self) -> CodeStore | None: ...

    def __len__(self) -> int: ...

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Raises ValueError for a sample that cannot be used, naming it."""
        ...


class CaptionSource:
    """Images and their captions: understanding."""

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, store: CodeStore):
        self.name = config.name or config.kind
        self.config, self.vocabulary, self.store = config, vocabulary, store
        self.groups = _groups(store, config.balance.split(",")) if config.balance else None

    def __len__(self) -> int:
        return len(self.store if self.groups is None else self.groups)

    def row(self, index: int, rng: np.random.Generator) -> int:
        """The row of the store behind document `index`."""
        if self.groups is None:
            return index
        return self.groups[index][rng.integers(len(self.groups[index]))]

    def caption(self, index: int, rng: np.random.Generator) -> str:
        captions = [caption for caption in self.store.captions(index) if caption.strip()]
        if not captions:
            raise ValueError(f"{self.store.key(index)!r} in {str(self.store.path)!r} has no caption")
        return captions[0 if self.config.caption_choice == "first" else rng.integers(len(captions))]

    def document(self, index: int, rng: np.random.Generator) -> Document:
        row = self.row(index, rng)
        return caption_document(
            self.vocabulary, ImageRef(self.store, row), self.caption(row, rng), self.store.key(row)
        )


class DrawSource(CaptionSource):
    """Captions and their images: generation."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        row = self.row(index, rng)
        caption: str | None = self.caption(row, rng)
        if rng.random() < self.config.caption_dropout:
            caption = None
        return drawing_document(self.vocabulary, ImageRef(self.store, row), caption, self.store.key(row))


def _groups(store: CodeStore, keys: list[str]) -> list[list[int]]:
    """The rows of each combination of values of the metadata `keys`, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(len(store)):
        metadata = store.metadata(row)
        if missing := [key for key in keys if key not in metadata]:
            raise ValueError(f"balance: {store.key(row)!r} in {str(store.path)!r} has no {', '.join(missing)}")
        groups.setdefault(tuple(metadata[key] for key in keys), []).append(row)
    return list(groups.values())


class ConversationSource:
    """Questions and answers about images."""

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, store: CodeStore):
        self.name = config.name or config.kind
        self.path, self.vocabulary, self.store = config.path, vocabulary, store
        self.records = _read_records(config.path)

    def __len__(self) -> int:
        return len(self.records)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        key = str(self.records[index].get("id", index))
        turns = conversation_turns(self.records[index], self.store, f"conversation {key!r} of {self.path!r}")
        return conversation_document(self.vocabulary, turns, key)


class TextSource:
    """Text alone."""

    store = None

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, store: None = None):
        self.name = config.name or config.kind
        self.path, self.vocabulary = config.path, vocabulary
        self.records = _read_records(config.path)

    def __len__(self) -> int:
        return len(self.records)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        text = self.records[index].get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"document {index} of {self.path!r} has no text")
        return text_document(self.vocabulary, text, f"{self.path}:{index}")


class SpacedSource:
    """`num` documents of a source, evenly spaced."""

    def __init__(self, source: Source, num: int):
        self.name, self.source, self.num = source.name, source, num

    @property
    def store(self) -> CodeStore | None:
        return self.source.store

    def __len__(self) -> int:
        return self.num

    def document(self, index: int, rng: np.random.Generator) -> Document:
        return self.source.document(index * len(self.source) // self.num, rng)


SOURCES: dict[str, Callable[..., Source]] = {
    "caption": CaptionSource,
    "draw": DrawSource,
    "conversation": ConversationSource,
    "text": TextSource,
}


def open_sources(
    configs: Sequence[SourceConfig], vocabulary: Vocabulary, tokenizer_id: str | None = None
) -> list[Source]:
    """Open each store once, and refuse codes of another tokenizer than `tokenizer_id` or than each other's."""
    paths = dict.fromkeys(config.codes for config in configs if config.codes)
    stores: dict[str, CodeStore] = {}
    for path in paths:
        stores[path] = CodeStore.open(path, tokenizer_id)
        tokenizer_id = stores[path].provenance["tokenizer_id"]
    sources = [SOURCES[c.kind](c, vocabulary, stores.get(c.codes)) for c in configs]
    for source, config in zip(sources, configs, strict=True):
        if not len(source):
            raise ValueError(f"the {config.kind} source {config.path or config.codes!r} is empty")
    return [
        SpacedSource(source, c.num_documents) if 0 < c.num_documents < len(source) else source
        for source, c in zip(sources, configs, strict=True)
    ]


def _read_records(path: str) -> list[dict[str, Any]]:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {path!r}: give the path of the conversations or texts")
    try:
        text = file.read_text(encoding="utf-8")
        lines = [line for line in text.split("\n") if line.strip()]
        if file.suffix == ".txt":
            return [{"text": line} for line in lines]
        records = [json.loads(line) for line in lines] if file.suffix == ".jsonl" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path!r} cannot be read as {file.suffix or 'json'}: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path!r} is no list of records: see the formats in data/sources.py")
    return records
