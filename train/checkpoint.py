"""Checkpoints that are whole or absent: written beside, flushed to the disk, renamed.

`checkpoints/step-000123/` holds `state.pt` (tensors and plain Python, read back with weights_only=True). Stages without
DeepSpeed save everything there; under DeepSpeed the engine adds its own files to the folder (train/engine.py).
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
PARTIAL = ".partial"


def save_checkpoint(folder: str | Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Saves `state` as `folder/step-XXXXXX/state.pt` and deletes all but the newest `keep` checkpoints."""
    partial = begin_checkpoint(folder, step)
    save_state(state, partial / "state.pt")
    return commit_checkpoint(partial, keep)


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


def begin_checkpoint(folder: str | Path, step: int) -> Path:
    """An empty folder beside the final one, to be filled and committed."""
    partial = Path(folder) / f"step-{step:06d}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit_checkpoint(partial: Path, keep: int) -> Path:
    """Flushes and renames what `begin_checkpoint` opened; only then are older checkpoints deleted, down to `keep`."""
    flush_folder(partial)
    final = partial.with_name(partial.name.removesuffix(PARTIAL))
    if final.exists():  # a run that was rewound and comes by this step again
        shutil.rmtree(final)
    os.replace(partial, final)
    _fsync(final.parent)
    for old in list_checkpoints(final.parent)[: -max(keep, 1)]:
        shutil.rmtree(old)
    return final


def flush_folder(folder: Path) -> None:
    """Forces every file of a folder to the disk, the folder's own list of names included."""
    for path in sorted(folder.rglob("*")):
        _fsync(path)
    _fsync(folder)


def save_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, with a full disk named as such."""
    try:
        torch.save(state, path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        raise OSError(f"could not write {path}: {error}; the previous checkpoint is untouched") from error


def load_state(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """torch.load that runs no code from the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {path.parent} is no checkpoint of this project")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is damaged: delete {path.parent}, and the run continues from the checkpoint before it"
        ) from error


def save_rng() -> dict[str, Any]:
    """The state of every random generator of this process, as tensors and plain Python."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Puts every random generator where `save_rng` found it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
