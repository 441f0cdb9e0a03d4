"""Endless batches of captioned images for the tower and tokenizer stages, exactly resumable from two integers.

A small set is decoded once, kept as uint8 and permuted per epoch; a large one streams from its shards, which costs a
pass over the part already seen when it resumes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from data.images import ImageTransform
from data.shards import RawSample, iterate_shards


@dataclass(frozen=True)
class ImageDataConfig:
    shards: str = "assets/emoji/train-*.tar.gz"  # a glob, a brace range or a comma-separated list
    batch_size: int = 64
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


class ImageBatches(Protocol):
    """`next()` gives batch after batch, epoch after epoch; the last incomplete batch of an epoch is left out."""

    def __next__(self) -> ImageBatch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class PermutedBatches:
    """Over a set in memory: a permutation per epoch, drawn from (seed, epoch)."""

    def __init__(self, images: ImageSet, batch_size: int, seed: int):
        if batch_size > len(images):
            raise ValueError(f"batch_size {batch_size} exceeds the {len(images)} images there are; make it smaller")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.epoch = self.position = 0

    def __next__(self) -> ImageBatch:
        if self.position + self.batch_size > len(self.images):
            self.epoch, self.position = self.epoch + 1, 0
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.images))
        indices = order[self.position : self.position + self.batch_size].tolist()
        self.position += self.batch_size
        return self.images.batch(indices)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class StreamedBatches:
    """Over shards of any number, shuffled by (seed, epoch); the state counts the batches of the epoch."""

    def __init__(self, config: ImageDataConfig, transform: ImageTransform):
        self.config, self.transform = config, transform
        self.epoch = self.position = 0
        self._batches = self._pass()

    def __next__(self) -> ImageBatch:
        batch = next(self._batches, None)
        if batch is None:
            if not self.position:
                raise ValueError(f"{self.config.shards} hold fewer images than a batch of {self.config.batch_size}")
            self.epoch, self.position = self.epoch + 1, 0
            self._batches = self._pass()
            return next(self)
        self.position += 1
        return batch

    def _pass(self) -> Iterator[ImageBatch]:
        config = self.config
        samples = iterate_shards(config.shards, shuffle_seed=config.seed, epoch=self.epoch)
        while len(group := list(islice(samples, config.batch_size))) == config.batch_size:
            yield ImageBatch(torch.stack([self.transform(s.image) for s in group]), [describe(s) for s in group])

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._batches = islice(self._pass(), self.position, None)


def open_batches(config: ImageDataConfig, transform: ImageTransform) -> ImageBatches:
    """What the config asks for. Raises FileNotFoundError for missing shards and ValueError for unusable ones."""
    if config.in_memory:
        return PermutedBatches(ImageSet(config.shards, transform), config.batch_size, config.seed)
    return StreamedBatches(config, transform)


def describe(sample: RawSample) -> dict[str, Any]:
    """The sample's JSON, with all its captions and its key."""
    return {**sample.metadata, "captions": sample.metadata.get("captions") or [sample.caption], "key": sample.key}
