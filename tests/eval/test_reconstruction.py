"""PSNR and SSIM against a loop over windows, and against torchmetrics with the settings that mean the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.reconstruction import from_pixel_values, psnr, score, ssim


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 3, 16, 19, generator=generator)
    noise = torch.randn(reference.shape, generator=generator) * torch.tensor([0.02, 0.1, 0.5]).view(3, 1, 1, 1)
    return reference, (reference + noise).clamp(0, 1)


def naive_ssim(x, y):
    """One image uint8[3, h, w], a window at a time."""
    x, y = x.astype(np.float64) / 255, y.astype(np.float64) / 255
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for channel in range(3):
        for top in range(x.shape[1] - 10):
            for left in range(x.shape[2] - 10):
                a = x[channel, top : top + 11, left : left + 11]
                b = y[channel, top : top + 11, left : left + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                numerator = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
                values.append(numerator / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return np.mean(values)


def eight_bit(images):
    return (images * 255).round().to(torch.uint8).numpy()


def test_ssim_is_that_of_a_loop_over_windows(pair):
    expected = [naive_ssim(x, y) for x, y in zip(*map(eight_bit, pair), strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-12)


def test_psnr_is_that_of_the_eight_bit_images(pair):
    expected = []
    for x, y in zip(*map(eight_bit, pair), strict=True):
        error = np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2)
        expected.append(10 * math.log10(255**2 / error))
    assert psnr(*pair).tolist() == pytest.approx(expected, abs=1e-10)


def test_torchmetrics_agrees_where_its_settings_mean_the_same(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    reference, images = ((part * 255).round().double() / 255 for part in pair)
    theirs = image.peak_signal_noise_ratio(images, reference, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert psnr(*pair).tolist() == pytest.approx(theirs.tolist())
    # It pads by reflection; its valid region is the map without the border of five.
    _, full = image.structural_similarity_index_measure(
        images, reference, data_range=1.0, kernel_size=11, sigma=1.5, reduction="none", return_full_image=True
    )
    valid = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert ssim(*pair).tolist() == pytest.approx(valid.tolist(), abs=1e-6)


def test_one_level_off_everywhere_is_48_db():
    black = torch.zeros(1, 3, 11, 11)
    assert psnr(black, black + 1 / 255).item() == pytest.approx(20 * math.log10(255))
    assert psnr(black, black + 0.4 / 255).item() == math.inf  # rounds to the same level


def test_identical_images_have_ssim_one_and_infinite_psnr(pair):
    assert ssim(pair[0], pair[0]).tolist() == pytest.approx([1, 1, 1])
    assert psnr(pair[0], pair[0]).tolist() == [math.inf] * 3


def test_the_score_is_the_mean_over_images_however_they_are_batched(pair):
    whole = score([pair])
    parts = score([(pair[0][:1], pair[1][:1]), (pair[0][1:], pair[1][1:])])
    assert whole["psnr"] == pytest.approx(psnr(*pair).mean().item())
    assert whole["ssim"] == pytest.approx(parts["ssim"])
    assert whole["psnr"] == pytest.approx(parts["psnr"])
    assert (whole["num_images"], len(whole["per_image"])) == (3, 3)


def test_images_of_models_are_converted_first():
    assert from_pixel_values(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0.5, 1]
    with pytest.raises(ValueError, match="from_pixel_values"):
        psnr(torch.zeros(1, 3, 11, 11), torch.full((1, 3, 11, 11), -1.0))


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(torch.zeros(1, 3, 11, 11), torch.zeros(1, 3, 11, 12))
    with pytest.raises(ValueError, match="at least 11×11"):
        ssim(torch.zeros(1, 3, 10, 11), torch.zeros(1, 3, 10, 11))
    with pytest.raises(ValueError, match="no images"):
        score([])


def test_nan_is_an_error_and_no_figure():
    broken = torch.full((1, 3, 11, 11), math.nan)
    for pair in ((broken, torch.zeros_like(broken)), (torch.zeros_like(broken), broken)):
        with pytest.raises(ValueError, match="images hold NaN"):
            psnr(*pair)


IMAGES = arrays(np.float64, (2, 3, 12, 13), elements=st.integers(0, 255).map(lambda level: level / 255))


@settings(max_examples=30, deadline=None)
@given(IMAGES, IMAGES)
def test_both_are_symmetric_and_know_no_direction_and_no_order_of_channels_or_images(x, y):
    for measure in (psnr, ssim):
        expected = pytest.approx(measure(x, y), nan_ok=False)
        assert measure(y, x) == expected
        assert measure(x[..., ::-1], y[..., ::-1]) == expected and measure(x[:, ::-1], y[:, ::-1]) == expected
        assert measure(x.swapaxes(2, 3), y.swapaxes(2, 3)) == expected
        assert measure(x[::-1], y[::-1])[::-1] == expected
    assert psnr(1 - x, 1 - y) == pytest.approx(psnr(x, y))
    assert (abs(ssim(x, y)) <= 1 + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(IMAGES, st.integers(1, 60))
def test_an_error_of_twice_the_size_costs_six_decibels(x, levels):
    dark = x * (135 / 255)  # so that neither error leaves the range
    dark = np.round(dark * 255) / 255
    once, twice = (psnr(dark, dark + factor * levels / 255) for factor in (1, 2))
    assert once - twice == pytest.approx(20 * math.log10(2))
