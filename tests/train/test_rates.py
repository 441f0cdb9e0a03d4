"""Rates by hand, and the peak that they are compared with."""

import time

import pytest
import torch

from data.batch import Batch
from data.loader import Step
from train.distributed import World
from train.rates import RateMeter, matmul_peak, peak_memory


def step(num_images: int) -> Step:
    codes, rows = torch.zeros(num_images, 4, 2, dtype=torch.int64), torch.zeros(2, 10, dtype=torch.int64)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    return Step([Batch(codes, codes, rows, rows, rows, mask, mask, [])], 1, 1)


def test_rates_are_per_second_of_steps_and_waiting():
    meter = RateMeter(World(), flops=lambda batch: 300.0 * len(batch.pixel), peak=1000.0)
    waits = iter([0.02, 0.0])

    def slow():
        for number in (1, 3):
            time.sleep(next(waits))
            yield step(number)

    for data in meter.waiting(slow()):
        meter.add(data, seconds=0.49)
    means = meter.means()
    waited = means["data.wait_seconds"] * 2
    assert waited >= 0.02
    seconds = 0.98 + waited
    assert means["step_seconds"] == pytest.approx(seconds / 2)
    assert means["tokens_per_second"] == pytest.approx(40 / seconds)
    assert means["images_per_second"] == pytest.approx(4 / seconds)
    assert means["mfu"] == pytest.approx(1200 / 1000 / seconds)
    assert means["data.wait_share"] == pytest.approx(waited / seconds)
    assert means["peak_memory_gb"] == pytest.approx(peak_memory(torch.device("cpu")) / 2**30, rel=0.05)
    assert meter.means()["tokens_per_second"] == 0  # since the last call


def test_memory_at_most_counts_what_is_written():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(2**26)  # 256 MB, more than what imports may have given back
    assert peak_memory(torch.device("cpu")) >= before
    assert peak_memory(torch.device("cpu")) >= held.nbytes


def test_the_peak_leaves_the_random_numbers_of_the_run_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert matmul_peak(torch.float32, torch.device("cpu"), seconds=0.01) > 1e6
    assert torch.equal(torch.rand(3), expected)
