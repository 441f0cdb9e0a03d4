"""Sources of training documents, each of a documented format (docs/training-data.md).

A source is a length and `document(index, rng)`, which depends on nothing else: any document can be made again.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from data.code_sources import CaptionSource, DrawSource
from data.codes import CodeStore
from data.documents import Document
from data.image_library import ImageLibrary
from data.picture_files import PictureEncoder, PictureFiles
from data.record_sources import CaptionRecords, ConversationSource, DrawRecords, InterleavedSource, TextSource
from data.source_config import SourceConfig
from data.vocabulary import Vocabulary


class Source(Protocol):
    name: str

    @property
    def stores(self) -> Sequence[CodeStore | PictureFiles]:
        """What its images are read from."""
        ...

    def __len__(self) -> int: ...

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Raises ValueError for a sample that cannot be used, naming it."""
        ...


class SpacedSource:
    """`num` documents of a source, evenly spaced."""

    def __init__(self, source: Source, num: int):
        self.name, self.source, self.num = source.name, source, num

    @property
    def stores(self) -> Sequence[CodeStore | PictureFiles]:
        return self.source.stores

    def __len__(self) -> int:
        return self.num

    def document(self, index: int, rng: np.random.Generator) -> Document:
        return self.source.document(index * len(self.source) // self.num, rng)


OF_STORES: dict[str, Callable[..., Source]] = {"caption": CaptionSource, "draw": DrawSource}
OF_RECORDS: dict[str, Callable[..., Source]] = {
    "caption": CaptionRecords,
    "draw": DrawRecords,
    "conversation": ConversationSource,
    "interleaved": InterleavedSource,
    "text": TextSource,
}


def open_sources(
    configs: Sequence[SourceConfig],
    vocabulary: Vocabulary,
    tokenizer_id: str | None = None,
    encoder: PictureEncoder | None = None,
    max_bad_share: float = 0.01,
) -> list[Source]:
    """Open each store once, and refuse codes of another tokenizer than `tokenizer_id` or than each other's.

    `encoder` is the tokenizer for picture files; more than `max_bad_share` of them broken is an error.
    """
    stores: dict[str, CodeStore] = {}
    for path in dict.fromkeys(config.codes for config in configs if config.codes):
        stores[path] = CodeStore.open(path, tokenizer_id)
        tokenizer_id = stores[path].provenance["tokenizer_id"]
    folders = dict.fromkeys(config.images for config in configs if config.images)
    files = {folder: PictureFiles(folder, encoder, max_bad_share) for folder in folders}
    sources: list[Source] = []
    for config in configs:
        store = stores.get(config.codes)
        source: Source
        if config.reads_store:
            source = OF_STORES[config.kind](config, vocabulary, store)
        else:
            if store is not None:
                store.check_keys()
            source = OF_RECORDS[config.kind](config, vocabulary, ImageLibrary(store, files.get(config.images)))
        if not len(source):
            raise ValueError(f"the {config.kind} source {config.path or config.codes!r} is empty")
        is_part = 0 < config.num_documents < len(source)
        sources.append(SpacedSource(source, config.num_documents) if is_part else source)
    return sources
