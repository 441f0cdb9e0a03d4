"""What the packed rows of a training config hold: counted where the data are at hand, else estimated."""

import math
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import islice

from data.loader import Loader
from data.sources import SourceConfig
from train.flops import Work
from train.inspect_data import open_vocabulary_of
from train.train_mllm import TrainMllmConfig

ROWS_COUNTED = 200
# Tokens of a document beside its images, and how many of them are learned, where its texts are not at hand.
ASSUMED_TOKENS = {
    "caption": (45, 30),
    "draw": (45, 2),
    "conversation": (300, 150),
    "interleaved": (300, 300),
    "text": (500, 500),
}


@dataclass(frozen=True)
class Rows:
    """Means over rows."""

    work: Work
    images: float
    documents: float
    sizes: tuple[int, ...] = ()  # documents of each source; empty where they were not counted


def planned_rows(config: TrainMllmConfig, num_patches: int) -> Rows:
    """Picture files that have to be tokenized first are not at hand. A mistake in data that are is a ValueError."""
    if not any(source.images for source in config.data.sources):
        with suppress(FileNotFoundError):
            return counted(config)
    return estimated(config.data.sources, config.data.context_length, num_patches)


def counted(config: TrainMllmConfig) -> Rows:
    """The first rows that the run will see."""
    loader = Loader(config.data, open_vocabulary_of(config))
    steps = islice(loader, math.ceil(ROWS_COUNTED / config.data.rows_per_batch))
    batches = [batch for step in steps for batch in step.micro_batches]
    num_rows = sum(len(batch.input_ids) for batch in batches)
    return Rows(
        work=_sum([(Work.of(batch), 1 / num_rows) for batch in batches]),
        images=sum(len(batch.pixel) for batch in batches) / num_rows,
        documents=sum(len(batch.keys) for batch in batches) / num_rows,
        sizes=tuple(map(len, loader.sources)),
    )


def estimated(sources: list[SourceConfig], context_length: int, num_patches: int) -> Rows:
    """Full rows of documents by weight, with an image each that is no text."""
    total = sum(source.weight for source in sources)
    kinds = [(_document(source, num_patches), source.weight / total) for source in sources]
    documents = context_length / sum(share * kind.work.positions for kind, share in kinds)
    return Rows(
        work=_sum([(kind.work, documents * share) for kind, share in kinds]),
        images=sum(documents * share * kind.images for kind, share in kinds),
        documents=documents,
    )


def _document(source: SourceConfig, num_patches: int) -> Rows:
    tokens, learned = ASSUMED_TOKENS[source.kind]
    images = 0 if source.kind == "text" else 1
    drawn = images if source.kind == "draw" or (source.kind == "interleaved" and source.learn_images) else 0
    length = tokens + images * (num_patches + 2)
    work = Work(length, length * (length + 1) / 2, images * num_patches, learned, drawn * num_patches)
    return Rows(work, images, documents=1)


def fullest(context_length: int, num_patches: int, num_rows: int) -> Work:
    """Rows that are drawn images from end to end, which memory has to hold."""
    images = num_rows * max(context_length // (num_patches + 2), 1)
    positions, patches = num_rows * context_length, images * num_patches
    return Work(positions, positions * context_length / 2, patches, positions - patches, patches)


def _sum(terms: list[tuple[Work, float]]) -> Work:
    return Work(*(sum(factor * getattr(work, f.name) for work, factor in terms) for f in fields(Work)))
