"""Endless batches of captioned images for the tower and tokenizer stages, exactly resumable.

The order is a permutation per epoch drawn from (seed, epoch); the state is two integers. Images are decoded once and kept
as uint8, so a set must fit into memory (64 px: 12 kB an image).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.images import ImageTransform
from data.shards import iterate_shards


@dataclass(frozen=True)
class ImageDataConfig:
    shards: str = "assets/emoji/train-*.tar.gz"  # a glob, a brace range or a comma-separated list
    batch_size: int = 64
    seed: int = 0


class ImageBatch(NamedTuple):
    pixel_values: Tensor  # float32[B, 3, h, w] in [−1, 1]
    metadata: list[dict[str, Any]]  # the samples' JSON, with "captions" and "key"


class ImageSet:
    """All images of some shards, transformed, in the order of the shards."""

    def __init__(self, shards: str, transform: ImageTransform):
        pixels, self.metadata = [], []
        for sample in iterate_shards(shards):
            pixels.append((transform(sample.image) * 127.5 + 127.5).round().to(torch.uint8))
            captions = sample.metadata.get("captions") or [sample.caption]
            self.metadata.append({**sample.metadata, "captions": captions, "key": sample.key})
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
    """`next()` gives batch after batch, epoch after epoch; the last incomplete batch of an epoch is left out."""

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
