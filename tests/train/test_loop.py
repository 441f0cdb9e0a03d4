"""The single-process loop: killed anywhere and started again, it ends with the same weights, bit for bit."""

import numpy as np
import pytest
import torch

from data.image_batches import ImageSet, permuted_batches
from train.loop import Loop, LoopConfig, is_due
from train.optimizer import OptimizerConfig, build_adamw, optimise, restore_optimizer
from train.run import Run, read_log
from train.schedule import ScheduleConfig


class Pictures(ImageSet):
    """Five pictures without files."""

    def __init__(self):
        self.pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        self.metadata = [{"key": str(i)} for i in range(5)]


def train(folder, kill_after: int | None = None, steps: int = 9) -> dict[str, torch.Tensor]:
    """Noise from the global generator in every step, so that the generators' states matter too."""
    torch.manual_seed(123)
    model = torch.nn.Linear(48, 2)
    optimizer = build_adamw(model.parameters(), OptimizerConfig(learning_rate=0.1))
    batches = permuted_batches(Pictures(), batch_size=2, seed=7)
    run = Run(folder, LoopConfig())
    config = LoopConfig(steps=steps, log_every=2, checkpoint_every=3)
    loop = Loop(run, config, ScheduleConfig(), {"model": model, "optimizer": optimizer}, batches, "test")
    for step in loop:
        x = next(batches).pixel_values.flatten(1)
        loss = (model(x + torch.randn_like(x)) - float(np.random.rand())).square().mean()
        loop.record(loss=loss, grad_norm=optimise(optimizer, loss, 1.0))
        if step == kill_after:
            break
    return model.state_dict()


@pytest.mark.parametrize("kill_after", [0, 1, 4, 6])  # checkpoints fall between the lines of the log
def test_a_killed_run_ends_bit_identical(tmp_path, kill_after):
    np.random.seed(0)
    whole = train(tmp_path / "whole")
    np.random.seed(0)
    train(tmp_path / "killed", kill_after)
    if kill_after < 3:
        np.random.seed(0)  # nothing was saved yet: the run starts over, as the process would
    resumed = train(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "killed")]
    losses = [[(line["step"], line["loss"]) for line in log] for log in logs]
    assert losses[0] == losses[1]


def test_the_order_is_a_permutation_of_each_epoch():
    batches = permuted_batches(Pictures(), batch_size=2, seed=7)
    keys = [m["key"] for _ in range(2) for m in next(batches).metadata]
    assert len(set(keys)) == 4
    state = batches.state_dict()
    upcoming = [next(batches).metadata for _ in range(3)]
    batches.load_state_dict(state)
    assert [next(batches).metadata for _ in range(3)] == upcoming


@pytest.mark.parametrize("poison", [lambda output: output * torch.nan, lambda output: (output * 0).sqrt()])
def test_a_loss_or_gradient_that_is_not_finite_changes_no_weight_and_stops_in_the_end(tmp_path, poison):
    model = torch.nn.Linear(2, 1)
    optimizer = build_adamw(model.parameters(), OptimizerConfig())
    before = model.weight.clone()
    run, batches = Run(tmp_path, LoopConfig()), permuted_batches(Pictures(), 2, 0)
    loop = Loop(run, LoopConfig(steps=100), ScheduleConfig(), {"optimizer": optimizer}, batches, "test")
    with pytest.raises(ValueError, match="not finite for 21 steps in a row"):
        for _ in loop:
            loss = poison(model(torch.ones(1, 2))).sum()
            loop.record(loss=loss, grad_norm=optimise(optimizer, loss, 1.0))
    assert torch.equal(model.weight, before)


def test_a_checkpoint_of_another_shape_is_refused_with_advice(tmp_path):
    train(tmp_path, steps=2)
    run, model = Run(tmp_path, LoopConfig()), torch.nn.Linear(3, 3)
    optimizer = build_adamw(model.parameters(), OptimizerConfig())
    parts, batches = {"model": model, "optimizer": optimizer}, permuted_batches(Pictures(), 2, 0)
    loop = Loop(run, LoopConfig(steps=9), ScheduleConfig(), parts, batches, "test")
    with pytest.raises(ValueError, match=r"does not fit this config.*another `out`"):
        next(iter(loop))


def test_a_resumed_optimizer_has_the_moments_of_the_checkpoint_and_the_options_of_the_config():
    model = torch.nn.Linear(3, 3)
    before, after = (
        build_adamw(model.parameters(), OptimizerConfig(learning_rate=rate, betas=betas, weight_decay=decay))
        for rate, betas, decay in ((0.1, [0.9, 0.95], 0.0), (0.2, [0.8, 0.9], 0.3))
    )
    optimise(before, model(torch.randn(2, 3)).square().sum(), 1.0)
    restore_optimizer(after, before.state_dict())
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in after.param_groups] == [
        (0.2, (0.8, 0.9), 0.3), (0.2, (0.8, 0.9), 0.0),
    ]  # fmt: skip
    assert torch.equal(after.state[model.weight]["exp_avg"], before.state[model.weight]["exp_avg"])
    other = build_adamw([*model.parameters(), torch.nn.Parameter(torch.zeros(2, 2))], OptimizerConfig())
    with pytest.raises(ValueError, match="size of optimizer's group"):
        restore_optimizer(other, before.state_dict())


def test_every_zero_steps_is_never():
    assert [step for step in range(1, 7) if is_due(step, 3)] == [3, 6]
    assert not any(is_due(step, 0) for step in range(7))
