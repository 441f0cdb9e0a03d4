"""Documents of a code store: an image and its caption, in either direction."""

from collections.abc import Sequence

import numpy as np

from data.balance import Groups
from data.codes import CodeStore
from data.documents import Document, ImageRef, caption_document, drawing_document
from data.source_config import SourceConfig
from data.vocabulary import Vocabulary


def choose_caption(captions: Sequence[str], config: SourceConfig, rng: np.random.Generator, where: str) -> str:
    """One of them, as `caption_choice` says; ValueError with `where` in it if all are blank."""
    captions = [caption for caption in captions if caption.strip()]
    if not captions:
        raise ValueError(f"{where} has no caption")
    return captions[0 if config.caption_choice == "first" else rng.integers(len(captions))]


class CaptionSource:
    """Images and their captions: understanding."""

    def __init__(self, config: SourceConfig, vocabulary: Vocabulary, store: CodeStore):
        self.name = config.name or config.kind
        self.config, self.vocabulary, self.store = config, vocabulary, store
        self.stores = (store,)
        self.groups = Groups(store, config.balance.split(",")) if config.balance else None

    def __len__(self) -> int:
        return len(self.store if self.groups is None else self.groups)

    def row(self, index: int, rng: np.random.Generator) -> int:
        """The row of the store behind document `index`."""
        return index if self.groups is None else self.groups.draw(index, rng)

    def caption(self, index: int, rng: np.random.Generator) -> str:
        try:
            captions = self.store.captions(index)
        except UnicodeDecodeError as error:
            raise ValueError(f"a caption of {self._where(index)} is not valid UTF-8") from error
        return choose_caption(captions, self.config, rng, self._where(index))

    def document(self, index: int, rng: np.random.Generator) -> Document:
        row = self.row(index, rng)
        return caption_document(self.vocabulary, ImageRef(self.store, row), self.caption(row, rng), self.store.key(row))

    def _where(self, row: int) -> str:
        return f"{self.store.key(row)!r} in {str(self.store.path)!r}"


class DrawSource(CaptionSource):
    """Captions and their images: generation."""

    def document(self, index: int, rng: np.random.Generator) -> Document:
        row = self.row(index, rng)
        caption: str | None = self.caption(row, rng)
        if rng.random() < self.config.caption_dropout:
            caption = None
        return drawing_document(self.vocabulary, ImageRef(self.store, row), caption, self.store.key(row))
