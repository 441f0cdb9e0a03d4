"""Fréchet distance between two sets of features (Heusel et al. 2017), the arithmetic of every FID.

    d² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½

in float64 throughout, covariances over n − 1, as pytorch-fid, clean-fid and torch-fidelity have it. They take the root
of the product by `scipy.linalg.sqrtm`, which fails or turns complex where a covariance is singular, as it is with fewer
images than dimensions. With Σᵢ = Fᵢᵀ Fᵢ the trace is the sum of the singular values of F₁ F₂ᵀ, which always exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

_ROWS = 4096  # at a time: as float64 all would be several copies of gigabytes


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of centred outer products of features: what can be added up, over parts and over ranks."""

    count: int
    mean: np.ndarray  # float64[d]
    scatter: np.ndarray  # float64[d, d], Σ (x − mean)(x − mean)ᵀ

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """float[n, d], n ≥ 1. Raises ValueError where a feature is not finite."""
        blocks = (features[start : start + _ROWS] for start in range(0, len(features), _ROWS))
        return reduce(add, map(cls._of_block, blocks))

    @classmethod
    def _of_block(cls, features: np.ndarray) -> Moments:
        if not np.isfinite(features).all():
            raise ValueError("features for a Fréchet distance hold NaN or infinity: the network is broken")
        features = features.astype(np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan et al. 1983): centred sums, so that nothing cancels."""
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    @property
    def covariance(self) -> np.ndarray:
        """float64[d, d]. Raises ValueError below two images."""
        if self.count < 2:
            raise ValueError(f"a Fréchet distance needs at least two images on each side, not {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """≥ 0 up to rounding. Raises ValueError where the features are of different networks."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
    covariances = a.covariance, b.covariance
    factors = [_factor(covariance) for covariance in covariances]
    cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    shift = a.mean - b.mean
    return float(shift @ shift + sum(np.trace(covariance) for covariance in covariances) - 2 * cross)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F float64[rank, d] with FᵀF = the covariance; directions below its numerical rank are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T
