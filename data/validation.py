"""Batches of validation: one pass over held-out documents, built and packed as those of training."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from data.batch import Batch
from data.loader import DataConfig, image_shape
from data.mixture import Draw
from data.packing import collate
from data.picture_files import PictureEncoder
from data.sources import open_sources
from data.stream import RowStream
from data.vocabulary import Vocabulary


def validation_batches(
    config: DataConfig,
    vocabulary: Vocabulary,
    tokenizer_id: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_documents: int | None = None,
    encoder: PictureEncoder | None = None,
) -> Iterator[Batch]:
    """One pass over the sources in order, packed, without dropped captions and with canonical ones.

    Every rank gets the same number of batches, the last ones filled up with rows of padding: under ZeRO-3 a rank
    without a batch would make the others wait forever. `num_documents` takes that many of each source, evenly spaced.
    """
    canonical = [replace(source, caption_dropout=0.0, caption_choice="first") for source in config.sources]
    sources = open_sources(canonical, vocabulary, tokenizer_id, encoder, config.max_bad_share)
    shape = image_shape(sources)

    def draws() -> Iterator[Draw]:
        for place, source in enumerate(sources):
            count = min(len(source), num_documents or len(source))
            yield from (Draw(place, i * len(source) // count, 0) for i in range(count))

    rows = RowStream(sources, draws(), config.context_length, config.pack_window, config.seed, config.max_bad_share)
    size = config.rows_per_batch

    def batches() -> Iterator[Batch]:
        while group := list(islice(rows, world_size * size)):
            mine = group[rank * size : (rank + 1) * size]
            mine += [[] for _ in range(size - len(mine))]
            yield collate(mine, config.context_length, vocabulary.endoftext, *shape)

    return batches()  # so that a missing file is an error of this call, not of the first batch
