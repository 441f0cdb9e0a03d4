"""The rows of a code store by the values of their metadata, from which each document draws one."""

import hashlib
import json

import numpy as np

from data.codes import CodeStore
from data.kept_array import kept_array

KEPT_FROM = 100_000  # rows; the metadata of fewer are parsed in a second or two


class Groups:
    """Groups in the order in which their values first appear; those of a large store are kept in its folder."""

    def __init__(self, store: CodeStore, keys: list[str]):
        name = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
        beside = store.path / f".balance-{name}.npy"
        state = store.path / "state.json"  # written last, with every store
        labels = kept_array(beside, state, lambda: _labels(store, keys), len(store) >= KEPT_FROM)
        self._rows = labels.argsort(kind="stable")
        self._starts = np.cumsum([0, *np.bincount(labels)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """A row of the group."""
        start, end = self._starts[index : index + 2].tolist()
        return int(self._rows[start + rng.integers(end - start)])


def _labels(store: CodeStore, keys: list[str]) -> np.ndarray:
    """int64[rows], the group of each row."""
    groups: dict[str, int] = {}
    labels = np.empty(len(store), np.int64)
    for row in range(len(store)):
        metadata = store.metadata(row)
        if missing := [key for key in keys if key not in metadata]:
            raise ValueError(f"balance: {store.key(row)!r} in {str(store.path)!r} has no {', '.join(missing)}")
        value = json.dumps([metadata[key] for key in keys], sort_keys=True)  # lists and objects are values as well
        labels[row] = groups.setdefault(value, len(groups))
    return labels
