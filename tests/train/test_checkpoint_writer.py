"""Writing while training goes on; kills and full disks on the way."""

import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import torch

from tests.train.test_checkpoint import save_checkpoint
from train import checkpoint, checkpoint_writer
from train.checkpoint import latest_checkpoint, load_checkpoint
from train.checkpoint_writer import CheckpointWriter
from train.retention import KeepConfig


@pytest.fixture
def gate(monkeypatch) -> Event:
    """Files are written when it is open."""
    gate, save = Event(), checkpoint.save_state
    monkeypatch.setattr(checkpoint_writer, "save_state", lambda *args: (gate.wait(), save(*args)))
    return gate


def test_what_is_written_in_the_background_is_what_it_was_when_it_was_saved(tmp_path: Path, gate):
    weights, writer = torch.zeros(4), CheckpointWriter(tmp_path, KeepConfig(), background=True)
    writer.save(1, {"state.pt": {"nested": [{"weights": weights}], "step": 1}})
    weights += 1  # a step of training
    writer.poll()
    assert latest_checkpoint(tmp_path) is None
    gate.set()
    writer.finish()
    saved = load_checkpoint(latest_checkpoint(tmp_path))
    assert torch.equal(saved["nested"][0]["weights"], torch.zeros(4)) and saved["step"] == 1


def test_it_counts_from_the_first_step_after_it_was_written(tmp_path: Path, gate):
    writer = CheckpointWriter(tmp_path, KeepConfig(), background=True)
    writer.save(1, {"state.pt": {"step": 1}})
    gate.set()
    writer._thread.join()
    assert latest_checkpoint(tmp_path) is None
    writer.poll()
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1}
    writer.save(2, {"state.pt": {"step": 2}})
    writer.save(3, {"state.pt": {"step": 3}})  # waits for the one before
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 2}
    writer.finish()
    writer.finish()
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 3}


def killed_while_writing(folder: Path) -> None:
    save, count = torch.save, 0

    def save_and_die(state: dict, path: Path) -> None:
        nonlocal count
        count += 1
        save(state, path)
        if count == 2:
            with open(path, "r+b") as file:
                file.truncate(100)  # as far as the disk had come
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_and_die
    writer = CheckpointWriter(folder, KeepConfig(), background=True)
    writer.save(2, {"shard.pt": {"weights": torch.ones(9)}, "state.pt": {"step": 2}})
    writer.finish()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path):
    save_checkpoint(tmp_path, 1, {"step": 1})
    process = multiprocessing.get_context("fork").Process(target=killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "step-000002.partial" / "state.pt").stat().st_size == 100
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1}
    save_checkpoint(tmp_path, 2, {"step": 2})
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 2}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_takes_no_more_leaves_the_last_good_checkpoint_and_the_room(tmp_path: Path, background):
    """The kernel refuses what goes beyond the limit, as a full disk does, in the middle of a file."""
    save_checkpoint(tmp_path, 1, {"step": 1})
    writer = CheckpointWriter(tmp_path, KeepConfig(), background)
    with files_of_at_most(100_000), pytest.raises(OSError, match=r"could not write .*step-000002.*is untouched"):
        writer.save(2, {"small.pt": {"step": 2}, "large.pt": {"weights": torch.zeros(100_000)}})
        writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1}
    writer.save(3, {"state.pt": {"step": 3}})
    writer.finish()
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 3}


def test_a_disk_that_is_full_at_the_flush_is_found_as_well(tmp_path: Path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            save_checkpoint(tmp_path, 2, {"step": 2})
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 1}
