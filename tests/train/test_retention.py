"""Which checkpoints stay."""

import json
from pathlib import Path

import pytest
import torch

from tests.train.test_checkpoint import save_checkpoint
from train.checkpoint import list_checkpoints, load_checkpoint
from train.checkpoint_writer import CheckpointWriter
from train.retention import KeepConfig, steps_to_keep


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (KeepConfig(), {400, 450}),
        (KeepConfig(last=1), {450}),
        (KeepConfig(last=9), {100, 200, 300, 400, 450}),
        (KeepConfig(last=1, every=200), {200, 400, 450}),
        (KeepConfig(last=1, best="loss"), {200, 450}),
        (KeepConfig(last=2, every=300, best="loss"), {200, 300, 400, 450}),
    ],
)
def test_last_milestones_and_best(config, expected):
    values = {100: 3.0, 150: 0.1, 200: 1.0, 300: 1.0, 400: 2.0}  # 150 has no checkpoint, 450 was not measured
    assert steps_to_keep([450, 100, 200, 400, 300], config, values if config.best else {}) == expected


def test_the_best_so_far_stays_on_the_disk_while_a_run_goes_on(tmp_path: Path, caplog):
    losses = [5.0, 2.0, 4.0, None, 3.0, 1.0, 6.0, 6.0]
    best = {1: {1}, 2: {2}, 3: {2, 3}, 4: {2, 4}, 5: {2, 5}, 6: {6}, 7: {6, 7}, 8: {6, 8}}
    writer = CheckpointWriter(tmp_path / "checkpoints", KeepConfig(last=1, best="validation.loss"), background=False)
    for step, loss in enumerate(losses, 1):
        with (tmp_path / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "loss": 0.0}) + "\n")
            log.write(json.dumps({"step": step, "validation.loss": loss}) + "\n")
        writer.save(step, {"state.pt": {"step": step}})
        found = list_checkpoints(tmp_path / "checkpoints")
        assert {load_checkpoint(path)["step"] for path in found} == best[step]
    assert caplog.text == ""


def test_a_metric_that_is_not_in_the_log_is_named(tmp_path: Path, caplog):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "text.loss": 1.0}\n')
    writer = CheckpointWriter(tmp_path / "checkpoints", KeepConfig(best="txt.loss"), background=False)
    writer.save(1, {"state.pt": {}})
    assert "loop.keep.best=txt.loss is not in" in caplog.text and "text.loss" in caplog.text


def test_a_kill_while_an_old_one_is_deleted_leaves_no_half_of_it(tmp_path: Path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"weights": torch.zeros(3)})

    def killed(path: Path) -> None:
        next(Path(path).iterdir()).unlink()
        pytest.fail("killed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(pytest.fail.Exception):
            save_checkpoint(tmp_path, 3, {})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000003"]
    save_checkpoint(tmp_path, 4, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


@pytest.mark.parametrize("wrong", [{"last": 0}, {"every": -1}])
def test_an_impossible_retention_is_refused(wrong):
    with pytest.raises(ValueError, match=r"loop\.keep"):
        KeepConfig(**wrong)
