"""Checkpoints that are whole or absent: written beside, flushed to the disk, renamed.

`checkpoints/step-000123/` holds `state.pt` and, of the unified model, two files of every rank (train/engine.py), all
read back with weights_only=True. train/checkpoint_writer.py fills the folder, train/retention.py says which ones stay.
"""

import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

_STEP_FOLDER = re.compile(r"step-(\d+)")


def load_checkpoint(folder: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """The `state` of one checkpoint folder."""
    return load_state(Path(folder) / "state.pt", map_location)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint under `folder`, or None."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first. What a kill left half-written has another name."""
    folders = Path(folder).iterdir() if Path(folder).is_dir() else ()
    return sorted((path for path in folders if _STEP_FOLDER.fullmatch(path.name)), key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    match = _STEP_FOLDER.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not a checkpoint folder: its name must look like step-000123")
    return int(match[1])


def begin_checkpoint(folder: Path, step: int) -> None:
    """An empty folder beside the final one, to be filled and committed; what a kill left of others goes."""
    for left in folder.glob("step-*.*"):
        shutil.rmtree(left)
    partial_folder(folder, step).mkdir(parents=True)


def partial_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.partial"


def commit_checkpoint(folder: Path, step: int) -> None:
    """Renames what `begin_checkpoint` opened, once all that is in it has been flushed."""
    partial = partial_folder(folder, step)
    final = partial.with_suffix("")
    if final.exists():  # a run that was rewound and comes by this step again
        remove_checkpoint(final)
    _fsync(partial)
    os.replace(partial, final)
    _fsync(folder)


def remove_checkpoint(path: Path) -> None:
    """Under another name first, for a kill must not leave half of it under its own."""
    shutil.rmtree(path.rename(path.with_suffix(".removed")))


def save_state(state: dict[str, Any], path: Path) -> None:
    """torch.save and a flush to the disk, with a full one named as such."""
    try:
        torch.save(state, path)
        _fsync(path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        raise OSError(f"could not write {path}: {error}; the previous checkpoint is untouched") from error


def load_state(path: Path, map_location: str | torch.device = "cpu", mmap: bool = False) -> dict[str, Any]:
    """torch.load that runs no code from the file; with `mmap` tensors are read when they are used."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {path.parent} is no checkpoint of this project")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of almost any kind where a file is not torch's, or would run code
        raise ValueError(
            f"{path} is damaged or foreign: delete {path.parent}, and the run continues from the checkpoint before it"
        ) from error


def save_rng() -> dict[str, Any]:
    """The state of every random generator of this process, as tensors and plain Python."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the device of this process
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Puts every random generator where `save_rng` found it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def reseed_rng(*entropy: int) -> None:
    """Starts every random generator of this process anew; other `entropy`, other numbers."""
    seeds = [int(seed) for seed in np.random.SeedSequence(entropy).generate_state(3)]
    torch.manual_seed(seeds[0])
    np.random.seed(seeds[1])
    random.seed(seeds[2])


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
