"""Endless batches of captioned images for the tower and tokenizer stages, exactly resumable from two integers.

A small set is decoded once, kept as uint8 and permuted per epoch; a large one streams from its shards, decoded by
threads while the model computes. A resumed stream decodes nothing of what it has seen, and of plain tars it reads the
headers alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.augment import Augment, AugmentConfig
from data.images import ImageTransform
from data.raw_sample import RawSample
from data.sample_health import Health
from data.shard_names import Spec, check_spec
from data.shards import Order, iterate_prepared

MAX_EMPTY_EPOCHS = 100
"""In which a rank got nothing but shards smaller than a batch; an epoch later it gets others."""


@dataclass(frozen=True)
class ImageDataConfig:
    shards: Any = "assets/emoji/train-*.tar.gz"  # names of data/shard_names.py: one, or a list
    batch_size: int = 64  # of one process and one micro-batch
    seed: int = 0
    in_memory: bool = True  # 12 kB an image at 64 px; false streams
    num_workers: int = 4  # threads of each process that decode pictures
    limit_bad_share: float = 0.01  # of unusable samples, above which it stops
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_spec(self.shards, "data.shards")
        if self.num_workers < 0:
            raise ValueError(f"data.num_workers={self.num_workers} must be at least 0")
        if self.in_memory and self.augment.min_scale < 1:
            raise ValueError("data.augment.min_scale below 1 crops whole pictures: it needs data.in_memory=false")
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size={self.batch_size} must be at least 1")


class ImageBatch(NamedTuple):
    pixel_values: Tensor  # float32[B, 3, h, w] in [−1, 1]
    metadata: list[dict[str, Any]]  # the samples' JSON, with "captions" and "key"


class ImageSet:
    """All images of some shards, transformed, in the order of the shards."""

    def __init__(self, shards: Spec, transform: ImageTransform, num_workers: int = 0, limit_bad_share: float = 0.01):
        def prepare(sample: RawSample) -> tuple[Tensor, dict[str, Any]]:
            return (transform(sample.image) * 127.5 + 127.5).round().to(torch.uint8), describe(sample)

        made = iterate_prepared(shards, prepare, limit_bad_share=limit_bad_share, num_workers=num_workers)
        pixels, self.metadata = [], []
        for _, (picture, metadata) in made:
            pixels.append(picture)
            self.metadata.append(metadata)
        if not pixels:
            raise ValueError(f"no usable image in {shards}")
        self.pixels = torch.stack(pixels)

    def __len__(self) -> int:
        return len(self.metadata)

    def batch(self, indices: list[int]) -> ImageBatch:
        return ImageBatch(self.pixels[indices].float() / 127.5 - 1, [self.metadata[i] for i in indices])

    def in_order(self, batch_size: int) -> Iterator[ImageBatch]:
        for start in range(0, len(self), batch_size):
            yield self.batch(list(range(start, min(start + batch_size, len(self)))))


class ImageBatches:
    """`next()` gives batch after batch, epoch after epoch; the last incomplete batch of an epoch is left out.

    `epoch_from(epoch, start)` iterates over the rest of an epoch, each batch with the `start` that continues after it.
    The state is these two integers.
    """

    def __init__(self, epoch_from: Callable[[int, int], Iterator[tuple[ImageBatch, int]]]):
        self.epoch_from = epoch_from
        self.epoch, self.start = 0, 0
        self._rest = epoch_from(0, 0)

    def __next__(self) -> ImageBatch:
        for _ in range(MAX_EMPTY_EPOCHS):
            following = next(self._rest, None)
            if following is not None:
                batch, self.start = following
                return batch
            self.load_state_dict({"epoch": self.epoch + 1, "start": 0})
        raise ValueError("the shards hold fewer images than one batch; make data.batch_size smaller")

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "start": self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.start = state["epoch"], state["start"]
        self._rest = self.epoch_from(self.epoch, self.start)


def permuted_batches(
    images: ImageSet, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, flip: float = 0.0
) -> ImageBatches:
    """Over a set in memory: a permutation per epoch, and which pictures are mirrored, drawn from (seed, epoch).

    `world_size` ranks share each run of `world_size · batch_size` images, so that they see together what one process
    with a batch as large would see.
    """
    size = world_size * batch_size
    if size > len(images):
        raise ValueError(
            f"batch_size {batch_size} in {world_size} process(es) exceeds the {len(images)} images there are; "
            "make it smaller"
        )

    def epoch_from(epoch: int, start: int) -> Iterator[tuple[ImageBatch, int]]:
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(images))
        is_flipped = rng.random(len(images)) < flip
        for first in range(start * size, len(images) - size + 1, size):
            own = order[first + rank * batch_size :][:batch_size]
            batch = images.batch(own.tolist())
            for place in np.flatnonzero(is_flipped[own]):
                batch.pixel_values[place] = batch.pixel_values[place].flip(-1)
            yield batch, first // size + 1

    return ImageBatches(epoch_from)


def streamed_batches(
    config: ImageDataConfig, transform: ImageTransform, rank: int = 0, world_size: int = 1
) -> ImageBatches:
    """Over shards of any number, shuffled by (seed, epoch); every rank reads its own shards at its own pace."""
    health = Health(config.limit_bad_share)  # of all epochs: one bad picture of a rank's few in one of them is no share

    def epoch_from(epoch: int, start: int) -> Iterator[tuple[ImageBatch, int]]:
        augment = Augment(config.augment, config.seed, epoch)

        def prepare(sample: RawSample) -> tuple[Tensor, dict[str, Any]]:
            return transform(augment(sample.image, sample.key)), describe(sample)

        made = iterate_prepared(
            config.shards,
            prepare,
            Order(config.seed, epoch, rank, world_size),
            start=start,
            health=health,
            num_workers=config.num_workers,
            ahead=2 * config.batch_size,
        )
        while len(group := list(islice(made, config.batch_size))) == config.batch_size:
            pictures, metadata = zip(*(sample for _, sample in group), strict=True)
            yield ImageBatch(torch.stack(pictures), list(metadata)), group[-1][0]
        if world_size == 1:
            health.check()

    return ImageBatches(epoch_from)


def open_batches(
    config: ImageDataConfig, transform: ImageTransform, rank: int = 0, world_size: int = 1
) -> ImageBatches:
    """What the config asks for. Raises FileNotFoundError for missing shards and ValueError for unusable ones."""
    if config.in_memory:
        images = ImageSet(config.shards, transform, config.num_workers, config.limit_bad_share)
        return permuted_batches(images, config.batch_size, config.seed, rank, world_size, config.augment.flip)
    return streamed_batches(config, transform, rank, world_size)


def describe(sample: RawSample) -> dict[str, Any]:
    """The sample's JSON, with all its captions and its key."""
    return {**sample.metadata, "captions": sample.metadata.get("captions") or [sample.caption], "key": sample.key}
