"""Random crops and flips of training pictures, before the transform that all pictures share.

What is drawn depends on (seed, epoch, key) alone: not on process, threads, or where a run was resumed.
"""

import random
from dataclasses import dataclass

from PIL import Image, ImageOps


@dataclass(frozen=True)
class AugmentConfig:
    flip: float = 0.0  # share of pictures that are mirrored; letters and "left of" do not survive it
    min_scale: float = 1.0  # a random square of at least this share of the short side; 1: the picture as it is

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"augment.flip={self.flip} is not between 0 and 1")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"augment.min_scale={self.min_scale} must be above 0 and at most 1")


class Augment:
    def __init__(self, config: AugmentConfig, seed: int, epoch: int):
        self.config, self.seed, self.epoch = config, seed, epoch

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        config = self.config
        rng = random.Random(f"augment {self.seed} {self.epoch} {key}")
        is_flipped = rng.random() < config.flip
        if config.min_scale < 1:
            side = max(1, round(min(image.size) * rng.uniform(config.min_scale, 1)))
            left, top = (rng.randint(0, length - side) for length in image.size)
            image = image.crop((left, top, left + side, top + side))
        return ImageOps.mirror(image) if is_flipped else image
