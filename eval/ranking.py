"""Nearest neighbours by product: the arithmetic under zero-shot classification and retrieval.

A query's rank is how many keys come before the best of those that belong to it; of keys with equal products the first
comes first, as with argmax. A recall@K, or a top-K accuracy, is the share of ranks below K.
"""

import numpy as np

_CHUNK = 1 << 22  # products at a time: all captions against all images would be a matrix of gigabytes
_NOWHERE = np.iinfo(np.int64).max


def normalise(features: np.ndarray) -> np.ndarray:
    """float[…, d] → the same directions with length 1, at single precision or better; a zero stays zero."""
    features = np.asarray(features)
    features = features.astype(np.result_type(features.dtype, np.float32), copy=False)
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def ranks(queries: np.ndarray, keys: np.ndarray, own: np.ndarray) -> np.ndarray:
    """float[N, d], float[M, d], own int64[N, m] → int64[N].

    `own`: the keys that belong to each query, −1 where it has fewer than m; a query without any ranks nowhere.
    """
    step = max(1, _CHUNK // len(keys))
    chunks = range(0, len(queries), step)
    parts = [_ranks_of_chunk(queries[i : i + step] @ keys.T, own[i : i + step]) for i in chunks]
    return np.concatenate(parts)


def hit_rate(rank: np.ndarray, k: int) -> float:
    return float((rank < k).mean())


def _ranks_of_chunk(products: np.ndarray, own: np.ndarray) -> np.ndarray:
    """float[n, M], int64[n, m] → int64[n]."""
    of_own = np.where(own >= 0, np.take_along_axis(products, own, axis=1), -np.inf)
    best = of_own.max(axis=1)
    # Row by row: NumPy counts a row's bits in one sweep, but the sums of a matrix of them one number at a time.
    rank = np.array([np.count_nonzero(row > value) for row, value in zip(products, best, strict=True)])
    equal = np.array([np.count_nonzero(row == value) for row, value in zip(products, best, strict=True)])
    for i in np.flatnonzero(equal > 1):  # another key is as near: look at the order
        first = own[i][of_own[i] == best[i]].min()
        rank[i] += np.count_nonzero(products[i, :first] == best[i])
    return np.where((own >= 0).any(axis=1), rank, _NOWHERE)
