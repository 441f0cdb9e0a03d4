"""Which document comes next: weighted shares of several sources, each in its own shuffled order.

The source that lags most behind its share goes next, so that every prefix of the stream holds the shares to a document
or so, without chance. Within a source, epoch after epoch is a permutation from (seed, source, epoch). A source with a
number of epochs ends after them: the others then divide the stream by their weights, and the stream ends with the last.
The state is two counters per source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Draw:
    source: int
    index: int  # within the source
    count: int  # earlier draws from the source: with the seed, it fixes every random choice in the document


class Mixture:
    """An iterator of draws, endless as long as a source with `epochs` 0, which is for ever, has a weight."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, epochs: Sequence[int] = ()):
        if not sum(weights) > 0 or min(weights) < 0:
            raise ValueError(f"the weights of the sources are {list(weights)}: give at least one a positive weight")
        self.sizes, self.weights, self.seed = list(sizes), list(weights), seed
        self.limits = [n * size for n, size in zip(epochs or [0] * len(self.sizes), sizes, strict=True)]
        self.counts = [0] * len(self.sizes)
        self.since = [0] * len(self.sizes)  # the counts when a source last ended: shares are counted from there
        self._order = lru_cache(maxsize=len(self.sizes))(self._permutation)

    def _permutation(self, source: int, epoch: int) -> np.ndarray:
        indices = np.arange(self.sizes[source], dtype=np.uint32 if self.sizes[source] < 2**32 else np.uint64)
        np.random.default_rng((self.seed, source, epoch)).shuffle(indices)
        return indices

    def _has_ended(self, source: int) -> bool:
        return 0 < self.limits[source] <= self.counts[source]

    def __iter__(self) -> "Mixture":
        return self

    def __next__(self) -> Draw:
        places = [place for place in range(len(self.sizes)) if not self._has_ended(place)]
        weight = sum(self.weights[place] for place in places)
        if not weight:
            raise StopIteration
        counts = {place: self.counts[place] - self.since[place] for place in places}
        total = sum(counts.values()) + 1
        lags = {place: self.weights[place] / weight * total - counts[place] for place in places}
        source = max(lags, key=lags.__getitem__)  # the first of equals
        count = self.counts[source]
        self.counts[source] += 1
        if self._has_ended(source):
            self.since = list(self.counts)
        epoch, place = divmod(count, self.sizes[source])
        return Draw(source, int(self._order(source, epoch)[place]), count)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": list(self.counts), "since": list(self.since)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also of a state without "since", from before sources could end."""
        self.counts = list(state["counts"])
        self.since = list(state.get("since", [0] * len(self.sizes)))
