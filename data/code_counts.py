"""How often each code occurs, per codebook and depth: what a data set asks of its codebooks.

A code store keeps the counts of its own rows (`counts.npz`); the statistics of a whole data set are their sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

COUNTS, STATISTICS = "counts.npz", "statistics.json"
BRANCHES = ("pixel", "semantic")
_TOGETHER = 64  # rows that are counted at once: each time costs a pass over all counters


class CodeCounts:
    """counts.of["pixel"] is int64[D, K]."""

    def __init__(self, depth: int, codebook_size: int):
        self.of = {branch: np.zeros((depth, codebook_size), np.int64) for branch in BRANCHES}
        self.num_images = 0
        self.num_bad = 0  # samples of the source that could not be read
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, pixel: np.ndarray, semantic: np.ndarray) -> None:
        """The codes [N, D] of one image."""
        self._waiting.append((pixel, semantic))
        self.num_images += 1
        if len(self._waiting) == _TOGETHER:
            self._count()

    def _count(self) -> None:
        rows, self._waiting = self._waiting, []
        for branch, codes in zip(BRANCHES, zip(*rows, strict=True), strict=False):
            depth, codebook_size = self.of[branch].shape
            places = np.concatenate(codes).astype(np.int64) + np.arange(depth) * codebook_size  # [B · N, D]
            self.of[branch] += np.bincount(places.ravel(), minlength=depth * codebook_size).reshape(depth, -1)

    def save(self, path: Path) -> None:
        self._count()
        np.savez_compressed(path, num_images=self.num_images, num_bad=self.num_bad, **self.of)  # type: ignore[arg-type]

    @classmethod
    def total(cls, paths: Iterable[Path], depth: int, codebook_size: int) -> CodeCounts:
        counts = cls(depth, codebook_size)
        for path in paths:
            with np.load(path, allow_pickle=False) as saved:
                counts.num_images += int(saved["num_images"])
                counts.num_bad += int(saved.get("num_bad", 0))  # absent in what older versions wrote
                for branch in BRANCHES:
                    counts.of[branch] += saved[branch]
        return counts

    def statistics(self) -> dict[str, Any]:
        """For each codebook: entropy in bits and usage, a number per depth; the share used at any depth; the counts."""
        self._count()
        described = {branch: _describe(counts) for branch, counts in self.of.items()}
        return {"num_images": self.num_images, "num_bad": self.num_bad, **described}


def read_totals(path: Path) -> tuple[int, int]:
    """How many images a part holds, and how many samples of its shard were bad."""
    with np.load(path, allow_pickle=False) as saved:
        return int(saved["num_images"]), int(saved.get("num_bad", 0))


def _describe(counts: np.ndarray) -> dict[str, Any]:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    bits = -(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=1)
    return {
        "entropy_bits": (bits + 0.0).round(4).tolist(),  # + 0.0: no −0
        "entropy_limit_bits": round(float(np.log2(counts.shape[1])), 4),
        "usage": (counts > 0).mean(axis=1).round(4).tolist(),
        "usage_any_depth": round(float((counts > 0).any(axis=0).mean()), 4),
        "counts": counts.tolist(),
    }


def as_table(statistics: dict[str, Any]) -> str:
    """The figures without the counts, for the terminal."""
    lines = [f"{statistics['num_images']} images, {statistics.get('num_bad', 0)} samples left out as unusable"]
    for branch in BRANCHES:
        found = statistics[branch]
        bits = " ".join(f"{value:.2f}" for value in found["entropy_bits"])
        usage = " ".join(f"{value:.0%}" for value in found["usage"])
        limit = found["entropy_limit_bits"]
        lines.append(f"{branch + ' codes':<15} unigram entropy per depth {bits} of {limit:.2f} bits")
        lines.append(f"{'':<15} entries used per depth {usage}, at any depth {found['usage_any_depth']:.0%}")
    return "\n".join(lines)
