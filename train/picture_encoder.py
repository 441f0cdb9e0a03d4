"""The tokenizer as data/ sees it: pictures that no code store holds become codes when a batch needs them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from data.images import ImageTransform
from data.picture_files import CodePair
from tokenizer import DualTokenizer


class TokenizerEncoder:
    """Encodes batches of exactly `batch_size` pictures, filled up with the last one.

    Products of another shape round otherwise, and now and then another code wins: with one shape, the codes of a
    picture depend neither on its neighbours nor on what was in a cache, and a resumed run sees the codes of the first.
    """

    def __init__(self, tokenizer: DualTokenizer, device: torch.device | str = "cpu", batch_size: int = 16):
        self.tokenizer, self.device, self.batch_size = tokenizer.freeze().to(device), device, batch_size
        self.transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)  # that of `dualtoken pretokenize`

    @property
    def grid(self) -> tuple[int, int]:
        return self.tokenizer.grid

    @property
    def num_patches(self) -> int:
        return self.tokenizer.grid[0] * self.tokenizer.grid[1]

    @property
    def depth(self) -> int:
        return self.tokenizer.config.pixel.depth

    def encode(self, pictures: Sequence[Image.Image]) -> list[CodePair]:
        """uint16[N, D] of each branch for every picture."""
        pairs: list[CodePair] = []
        for start in range(0, len(pictures), self.batch_size):
            batch = [self.transform(picture) for picture in pictures[start : start + self.batch_size]]
            filled = batch + batch[-1:] * (self.batch_size - len(batch))
            codes = self.tokenizer.encode(torch.stack(filled).to(self.device))
            pixel, semantic = (branch[: len(batch)].cpu().numpy().astype(np.uint16) for branch in codes)
            pairs += zip(pixel, semantic, strict=True)
        return pairs
