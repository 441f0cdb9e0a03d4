"""Codebook use by hand, and the warning of a collapse, said once and remembered over a restart."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from tests.tokenizer.conftest import TOWER, tiny_config
from tokenizer import DualCodes, DualTokenizer, TokenizerConfig
from tokenizer.tower import VisionTower
from train.distributed import World
from train.health import CodebookHealth, HealthConfig
from train.weight_ema import WeightEma, WeightEmaConfig


def health_of(config: TokenizerConfig = tiny_config(), **changes) -> tuple[CodebookHealth, DualTokenizer]:
    torch.manual_seed(0)
    model = DualTokenizer(config, VisionTower(TOWER))
    return CodebookHealth(HealthConfig(**changes), model, World()), model


def codes(pixel: list[int], semantic: list[int]) -> dict[str, torch.Tensor]:
    return DualCodes(*(torch.tensor(c).view(1, -1, 1) for c in (pixel, semantic)))._asdict()


def test_usage_and_perplexity_are_of_all_micro_batches():
    health, _ = health_of()
    health.add(codes([0, 0, 0, 0], [0, 1, 2, 3]))
    health.add(codes([1, 1, 1, 1], [4, 5, 6, 7]))
    metrics = health.metrics()
    assert metrics["pixel_usage"] == 2 / 8 and metrics["semantic_usage"] == 1
    assert metrics["pixel_perplexity"].item() == pytest.approx(math.exp(math.log(2)))
    assert metrics["semantic_perplexity"].item() == pytest.approx(8)
    assert health.metrics() == {}


def test_restarts_are_counted_under_both_names_of_one_codebook():
    health, model = health_of(tiny_config(pixel_layer=2, single_codebook=True))
    model.pixel_quantizer.codebook(0).num_restarts.fill_(3)
    health.add(codes([0, 1], [0, 1]))
    metrics = health.metrics()
    assert metrics["pixel_restarts"] == metrics["semantic_restarts"] == 3
    assert model.pixel_quantizer.codebook(0).num_restarts == 0


def test_codebooks_of_their_own_depth_are_counted_apart():
    """Together, three depths with one entry each would be three entries in use."""
    config = tiny_config()
    health, _ = health_of(replace(config, pixel=replace(config.pixel, shared=False)), min_usage=0.2, patience=1)
    of_depths = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 3], [0, 1, 3]]).view(1, 4, 3)
    health.add({"pixel": of_depths, "semantic": of_depths})
    metrics = health.metrics()
    assert metrics["pixel_usage"] == pytest.approx((1 + 1 + 2) / 3 / 8) and metrics["semantic_usage"] == 4 / 8
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert metrics["pixel_perplexity"].item() == pytest.approx((1 + 1 + math.exp(entropy)) / 3)
    assert health.low_steps["pixel"] == 0  # 1 of 4 entries that a batch of 4 could use


def test_restarts_are_counted_once():
    health, model = health_of()
    vectors, nearest = torch.randn(2, 4), torch.tensor([3, 5])
    model.semantic_quantizer.train().codebook(0).update([vectors], [nearest])
    health.add(codes([0], [0]))
    metrics = health.metrics()
    # from sizes of zero, one step leaves 0.01 for an entry that was used: all eight are below 1
    assert metrics["semantic_restarts"] == 8 and metrics["pixel_restarts"] == 0
    health.add(codes([0], [0]))
    assert health.metrics()["semantic_restarts"] == 0


def test_a_collapse_is_reported_after_its_patience_and_once(caplog):
    health, _ = health_of(min_usage=0.5, patience=3)
    with caplog.at_level(logging.WARNING):
        for step in range(8):
            health.add(codes([0] * 16, list(range(8))))
            health.metrics()
            if step == 1:
                state = health.state_dict()
                assert not caplog.records
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "pixel codebook" in message and "for 3 steps" in message and "restart_below" in message
    resumed, _ = health_of(min_usage=0.5, patience=3)
    resumed.load_state_dict(state)
    caplog.clear()
    resumed.add(codes([0] * 16, list(range(8))))
    resumed.metrics()
    assert len(caplog.records) == 1


def test_a_small_batch_is_no_collapse():
    health, _ = health_of(min_usage=0.5, patience=1)
    health.add(codes([0, 1], [2, 3]))  # two of two possible entries, a quarter of the codebook
    health.metrics()
    assert health.low_steps == {"pixel": 0, "semantic": 0}


def test_the_average_follows_its_formula_and_gives_way():
    model = torch.nn.Linear(2, 2)
    expected = model.weight.detach().clone()
    ema = WeightEma.of(model, WeightEmaConfig(decay=0.3))
    for step in range(6):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 2))
        ema.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    last = model.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, last)
    with pytest.raises(ValueError, match="other weights"):
        ema.load_state_dict({"bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"ema\.decay=1\.5"):
        WeightEmaConfig(decay=1.5)
