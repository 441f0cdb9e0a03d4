"""Endless batches of captioned images for the tower and tokenizer stages, exactly resumable from two integers.

A small set is decoded once, kept as uint8 and permuted per epoch; a large one streams from its shards, which costs a
pass over the part already seen when it resumes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.images import ImageTransform
from data.shards import RawSample, iterate_shards


@dataclass(frozen=True)
class ImageDataConfig:
    shards: str = "assets/emoji/train-*.tar.gz"  # a glob, a brace range or a comma-separated list
    batch_size: int = 64  # of one process and one micro-batch
    seed: int = 0
    in_memory: bool = True  # 12 kB an image at 64 px; false streams

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size={self.batch_size} must be at least 1")


class ImageBatch(NamedTuple):
    pixel_values: Tensor  # float32[B, 3, h, w] in [−1, 1]
    metadata: list[dict[str, Any]]  # the samples' JSON, with "captions" and "key"


class ImageSet:
    """All images of some shards, transformed, in the order of the shards."""

    def __init__(self, shards: str, transform: ImageTransform):
        pixels, self.metadata = [], []
        for sample in iterate_shards(shards):
            pixels.append((transform(sample.image) * 127.5 + 127.5).round().to(torch.uint8))
            self.metadata.append(describe(sample))
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

    def spread(self, num: int) -> ImageBatch:
        """`num` images, evenly spaced."""
        num = min(num, len(self))
        return self.batch([i * len(self) // num for i in range(num)])


class ImageBatches:
    """`next()` gives batch after batch, epoch after epoch; the last incomplete batch of an epoch is left out.

    `epoch_from(epoch, start)` iterates over one epoch from its batch `start` on. The state is these two integers.
    """

    def __init__(self, epoch_from: Callable[[int, int], Iterator[ImageBatch]]):
        self.epoch_from = epoch_from
        self.load_state_dict({"epoch": 0, "batch": 0})

    def __next__(self) -> ImageBatch:
        following = next(self._rest, None)
        if following is None:
            if not self.batch:
                raise ValueError("the shards hold fewer images than one batch; make data.batch_size smaller")
            self.load_state_dict({"epoch": self.epoch + 1, "batch": 0})
            return next(self)
        self.batch += 1
        return following

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._rest = self.epoch_from(self.epoch, self.batch)


def permuted_batches(images: ImageSet, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> ImageBatches:
    """Over a set in memory: a permutation per epoch, drawn from (seed, epoch).

    `world_size` ranks share each run of `world_size · batch_size` images, so that they see together what one process
    with a batch as large would see.
    """
    size = world_size * batch_size
    if size > len(images):
        raise ValueError(
            f"batch_size {batch_size} in {world_size} process(es) exceeds the {len(images)} images there are; "
            "make it smaller"
        )

    def epoch_from(epoch: int, start: int) -> Iterator[ImageBatch]:
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        for first in range(start * size, len(images) - size + 1, size):
            own = first + rank * batch_size
            yield images.batch(order[own : own + batch_size].tolist())

    return ImageBatches(epoch_from)


def streamed_batches(
    config: ImageDataConfig, transform: ImageTransform, rank: int = 0, world_size: int = 1
) -> ImageBatches:
    """Over shards of any number, shuffled by (seed, epoch); every rank reads its own shards at its own pace."""

    def epoch_from(epoch: int, start: int) -> Iterator[ImageBatch]:
        samples = iterate_shards(config.shards, shuffle_seed=config.seed, epoch=epoch, rank=rank, world_size=world_size)
        samples = islice(samples, start * config.batch_size, None)
        while len(group := list(islice(samples, config.batch_size))) == config.batch_size:
            yield ImageBatch(torch.stack([transform(s.image) for s in group]), [describe(s) for s in group])

    return ImageBatches(epoch_from)


def open_batches(
    config: ImageDataConfig, transform: ImageTransform, rank: int = 0, world_size: int = 1
) -> ImageBatches:
    """What the config asks for. Raises FileNotFoundError for missing shards and ValueError for unusable ones."""
    if config.in_memory:
        images = ImageSet(config.shards, transform)
        return permuted_batches(images, config.batch_size, config.seed, rank, world_size)
    return streamed_batches(config, transform, rank, world_size)


def describe(sample: RawSample) -> dict[str, Any]:
    """The sample's JSON, with all its captions and its key."""
    return {**sample.metadata, "captions": sample.metadata.get("captions") or [sample.caption], "key": sample.key}
