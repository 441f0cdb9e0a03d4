"""Where a key stands among millions: sorted hashes, 16 bytes a key, where a dict of strings takes 260.

A hash only proposes rows; whoever asks compares their keys.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

# w of the multilinear hash Σ_i w_i (byte_i + 1) mod 2^64; bytes of very long keys share weights
_WEIGHTS = np.random.default_rng(0).integers(1, 2**64, 1024, dtype=np.uint64) | np.uint64(1)


def hash_strings(strings: pa.StringArray) -> np.ndarray:
    """uint64[n] of n strings, computed on the array's own bytes."""
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, np.int32)[strings.offset :][: len(strings) + 1]
    utf8 = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    places = np.arange(len(utf8)) - np.repeat(bounds[:-1], np.diff(bounds))
    terms = _WEIGHTS[places % len(_WEIGHTS)] * (utf8 + np.uint64(1))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return sums[bounds[1:]] - sums[bounds[:-1]]


class KeyIndex:
    """Rows of one column of keys, given in pieces."""

    def __init__(self, columns: Iterable[pa.StringArray]):
        hashes = np.concatenate([hash_strings(column) for column in columns])
        self._rows = hashes.argsort()
        self._hashes = hashes[self._rows]

    def candidates(self, key: str) -> list[int]:
        """The rows that may hold the key: hardly ever more than one."""
        return self._rows_of(hash_strings(pa.array([key]))[0])

    def suspects(self) -> list[list[int]]:
        """Groups of rows whose keys may be the same."""
        repeated = np.unique(self._hashes[1:][self._hashes[1:] == self._hashes[:-1]])
        return [sorted(self._rows_of(value)) for value in repeated]

    def _rows_of(self, value: np.uint64) -> list[int]:
        first, last = (np.searchsorted(self._hashes, value, side) for side in ("left", "right"))
        return self._rows[first:last].tolist()
