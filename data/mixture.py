"""Which document comes next: weighted shares of several sources, each in its own shuffled order.

The source that lags most behind its share goes next, so that every prefix of the stream holds the shares to a document
or so, without chance. Within a source, epoch after epoch is a permutation from (seed, source, epoch). The state is one
counter per source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Draw:
    source: int
    index: int  # within the source
    count: int  # earlier draws from the source: with the seed, it fixes every random choice in the document


class Mixture:
    """An endless iterator of draws."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        if not sum(weights) > 0 or min(weights) < 0:
            raise ValueError(f"the weights of the sources are {list(weights)}: give at least one a positive weight")
        self.sizes = list(sizes)
        self.shares = [weight / sum(weights) for weight in weights]
        self.seed = seed
        self.counts = [0] * len(self.sizes)
        self._order = lru_cache(maxsize=len(self.sizes))(self._permutation)

    def _permutation(self, source: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, source, epoch)).permutation(self.sizes[source])

    def __iter__(self) -> "Mixture":
        return self

    def __next__(self) -> Draw:
        total = sum(self.counts) + 1
        lags = [share * total - count for share, count in zip(self.shares, self.counts, strict=True)]
        source = lags.index(max(lags))
        count = self.counts[source]
        self.counts[source] += 1
        epoch, place = divmod(count, self.sizes[source])
        return Draw(source, int(self._order(source, epoch)[place]), count)

    @property
    def epochs(self) -> list[float]:
        """How often each source has been seen."""
        return [count / size for count, size in zip(self.counts, self.sizes, strict=True)]
