"""Writes a checkpoint from all ranks: whole or absent, at once or while training goes on.

    writer.save(step, files)     every rank gives its own files
    writer.poll()                after each step: what all ranks have written meanwhile becomes a checkpoint
    writer.finish()              before the process ends

In the background, a thread writes a copy of the files in the CPU's memory. Only the main thread communicates, so that
collectives stay in one order on all ranks.
"""

from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from train.checkpoint import begin_checkpoint, commit_checkpoint, partial_folder, remove_checkpoint, save_state
from train.distributed import World
from train.retention import KeepConfig, prune


class CheckpointWriter:
    """Every method is to be called on all ranks."""

    def __init__(self, folder: Path, keep: KeepConfig, background: bool, world: World = World()):
        self.folder, self.keep, self.background, self.world = folder, keep, background, world
        self._step = -1  # of the checkpoint that is being written
        self._thread: Thread | None = None
        self._failure: Exception | None = None

    def save(self, step: int, files: dict[str, dict[str, Any]]) -> None:
        """Writes `files`, state by name, of this rank; in the background, training may change their tensors at once."""
        self.finish()
        self._step, self._failure = step, None
        self.world.on_main(begin_checkpoint, self.folder, step)
        if self.background:
            copied = tree_map_only(torch.Tensor, lambda t: t.detach().to("cpu", copy=True), files)
            self._thread = Thread(target=self._write, args=(copied,))
            self._thread.start()
        else:
            self._write(files)
            self.finish()

    def poll(self) -> None:
        if self._thread is None:
            return
        writing = torch.tensor(self._thread.is_alive(), dtype=torch.int32, device=self.world.device)
        if not self.world.sum(writing):
            self.finish()

    def finish(self) -> None:
        """Waits for the checkpoint that is being written. A full disk of one rank is raised on all."""
        if self._step < 0:
            return
        if self._thread is not None:
            self._thread.join()
        failures = [failure for failure in self.world.gather(self._failure) if failure is not None]
        step, self._step, self._thread = self._step, -1, None
        self.world.on_main(self._discard if failures else self._commit, step)
        if failures:
            raise failures[0]

    def _write(self, files: dict[str, dict[str, Any]]) -> None:
        try:
            for name, state in files.items():
                save_state(state, partial_folder(self.folder, self._step) / name)
        except Exception as failure:  # `finish` raises it
            self._failure = failure

    def _commit(self, step: int) -> None:
        commit_checkpoint(self.folder, step)
        prune(self.folder, self.keep)

    def _discard(self, step: int) -> None:
        """A full disk has room again."""
        remove_checkpoint(partial_folder(self.folder, step))
