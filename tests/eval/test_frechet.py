"""The Fréchet distance against Gaussians computed by hand, against scipy's matrix root, and added up in parts."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.linalg import sqrtm

from eval.frechet import Moments, frechet_distance


def axes(deviations: list[float], mean: list[float]) -> np.ndarray:
    """Points whose mean is `mean` and whose covariance over n − 1 is diagonal with these standard deviations."""
    scale = np.sqrt((2 * len(deviations) - 1) / 2)
    points = [sign * scale * deviation * unit for deviation, unit in zip(deviations, np.eye(len(mean)), strict=True)
              for sign in (1, -1)]  # fmt: skip
    return np.array(points) + mean


def by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    """The published formula as the public tools compute it."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(first + second - 2 * sqrtm(first @ second).real))


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    """Rectified and correlated, as the features of a network are."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((48, 48))
    first, second = (np.maximum(rng.standard_normal((n, 48)) @ mixing + shift, 0) for n, shift in ((300, 0), (400, 1)))
    return first, second


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (axes([1, 2], [0, 0]), axes([1, 2], [3, 4]), 25),  # the means alone
        (axes([1, 2], [0, 0]), axes([3, 5], [0, 0]), 4 + 9),  # Σ (σ₁ − σ₂)², where covariances commute
        (axes([1, 0], [0, 0]), axes([0, 1], [0, 0]), 2),  # both singular: 1 + 1 − 2 tr 0
        (axes([2, 0], [1, 0]), axes([5, 0], [0, 0]), 1 + 9),
    ],
)
def test_gaussians_computed_by_hand(first, second, expected):
    assert frechet_distance(Moments.of(first), Moments.of(second)) == pytest.approx(expected, abs=1e-9)


def test_it_is_that_of_the_matrix_root(features):
    expected = by_matrix_root(*features)
    assert expected > 1
    assert frechet_distance(*map(Moments.of, features)) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(*map(Moments.of, features[::-1])) == pytest.approx(expected, abs=1e-6)


def test_fewer_images_than_dimensions(features):
    few = Moments.of(features[0][:20])
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    shifted = Moments.of(features[0][:20] + 0.5)
    assert frechet_distance(few, shifted) == pytest.approx(48 * 0.25, abs=1e-5)


def test_parts_add_up_to_the_whole_however_far_from_zero(features):
    whole = features[0] + 1e6  # sums of squares would lose every digit of the covariance here
    parts = [Moments.of(part) for part in np.split(whole, [1, 40, 41, 200])]
    total = reduce(add, parts)
    assert total.count == len(whole)
    np.testing.assert_allclose(total.mean, whole.mean(0), rtol=1e-14)
    np.testing.assert_allclose(total.covariance, np.cov(whole, rowvar=False), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(total.scatter, reduce(add, parts[::-1]).scatter, rtol=1e-7, atol=1e-5)


def test_single_precision_features_are_summed_in_double(features):
    single = features[0].astype(np.float32)
    expected = np.cov(single.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(Moments.of(single).covariance, expected, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_compared_is_one_sentence(features):
    moments = Moments.of(features[0])
    with pytest.raises(ValueError, match="at least two images on each side, not 1"):
        frechet_distance(moments, Moments.of(features[0][:1]))
    with pytest.raises(ValueError, match="of 48 and of 47 dimensions"):
        frechet_distance(moments, Moments.of(features[0][:, 1:]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        Moments.of(np.full((3, 2), np.nan))
