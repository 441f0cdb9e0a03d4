"""Checkpoints are whole or absent, read back exactly, and run no code."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train import checkpoint_writer
from train.checkpoint import latest_checkpoint, list_checkpoints, load_checkpoint, reseed_rng, restore_rng, save_rng
from train.checkpoint_writer import CheckpointWriter
from train.retention import KeepConfig


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    CheckpointWriter(folder, KeepConfig(), background=False).save(step, {"state.pt": state})
    return folder / f"step-{step:06d}"


def test_state_reads_back_exactly(tmp_path: Path):
    state = {"weights": torch.randn(3, 4), "step": 7, "nested": {"names": ["a", "b"], "rate": 1e-3, "none": None}}
    saved = save_checkpoint(tmp_path, 7, state)
    loaded = load_checkpoint(latest_checkpoint(tmp_path))
    assert latest_checkpoint(tmp_path) == saved
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded == state


def test_the_newest_are_kept_in_the_order_of_their_steps(tmp_path: Path):
    for step in (5, 999_999, 1_000_000, 1_000_010):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-1000000", "step-1000010"]
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1_000_010}


def test_what_a_kill_left_behind_is_not_seen_and_goes_with_the_next_one(tmp_path: Path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "commit_checkpoint", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            save_checkpoint(tmp_path, 2, {"step": 2})
    assert (tmp_path / "step-000002.partial" / "state.pt").exists()
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1}
    save_checkpoint(tmp_path, 3, {"step": 3})
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000003"]


def test_a_step_that_is_saved_again_replaces_itself(tmp_path: Path):
    save_checkpoint(tmp_path, 3, {"value": 1})
    save_checkpoint(tmp_path, 3, {"value": 2})
    assert load_checkpoint(tmp_path / "step-000003") == {"value": 2}


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    folder = save_checkpoint(tmp_path, 1, {"weights": torch.randn(100)})
    content = (folder / "state.pt").read_bytes()
    for damaged in (content[:300], b"", b"hello"):
        (folder / "state.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state\.pt is damaged or foreign: delete .*step-000001"):
            load_checkpoint(folder)


class Harmful:
    def __reduce__(self):
        return (print, ("code from a file ran",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys):
    folder = tmp_path / "step-000001"
    folder.mkdir()
    torch.save({"state": Harmful()}, folder / "state.pt")
    with pytest.raises(ValueError, match="damaged or foreign"):
        load_checkpoint(folder)
    assert capsys.readouterr().out == ""


def test_no_checkpoint_is_none_and_a_foreign_folder_an_error(tmp_path: Path):
    assert latest_checkpoint(tmp_path / "missing") is None
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path)


def test_random_generators_continue_where_they_were(tmp_path: Path):
    def draw() -> tuple:
        return torch.rand(2).tolist(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1)

    draw()  # leaves a cached second normal number in numpy's and Python's generators
    save_checkpoint(tmp_path, 1, {"rng": save_rng()})
    expected = draw()
    draw()
    restore_rng(load_checkpoint(latest_checkpoint(tmp_path))["rng"])
    assert draw() == expected


def test_generators_started_anew_depend_on_what_they_are_given(tmp_path: Path):
    def draw(*entropy: int) -> tuple[float, float, float]:
        reseed_rng(*entropy)
        return torch.rand(()).item(), np.random.rand(), random.random()

    assert draw(7, 0) == draw(7, 0)
    assert len({value for entropy in ((7, 0), (7, 1), (8, 0)) for value in draw(*entropy)}) == 9
