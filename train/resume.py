"""May a run continue with this config? What changed since it began is listed; only harmless keys may differ, and those
that `loop.allow_changes` names, themselves or by what stands before them: [optimizer.learning_rate, data]."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from train.checkpoint import latest_checkpoint
from train.config import load_config

logger = logging.getLogger(__name__)

# Where and how often things are written or looked at, and how long the run is.
HARMLESS = (
    *("out", "tracking", "loop.steps", "loop.log_every", "loop.checkpoint_every"),
    *("loop.keep", "loop.save_in_background", "loop.allow_changes"),
    *("validation", "samples", "spikes", "peak_tflops", "sample_every", "health", "data.workers", "data.prefetch"),
)


def refuse_changed_config(folder: str | Path, config: Any) -> None:
    """Raises ValueError if `folder` holds a checkpoint of a run whose config differs in keys that may not."""
    saved = Path(folder) / "config.yaml"
    if not saved.exists() or latest_checkpoint(Path(folder) / "checkpoints") is None:
        return
    before = load_config(type(config), saved)  # keys that are newer than the file take their defaults
    old, new = (_flatten(OmegaConf.to_container(OmegaConf.structured(c))) for c in (before, config))
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key) and not _is_in(key, HARMLESS)]
    refused = [key for key in changed if not _is_in(key, config.loop.allow_changes)]
    changes = "; ".join(f"{key}: {old.get(key)} → {new.get(key)}" for key in refused or changed)
    if refused:
        raise ValueError(
            f"the run in {folder} began with another config ({changes}): restore these keys, go on with the new values "
            f"by loop.allow_changes=[{','.join(refused)}], or choose another `out` for a new run"
        )
    if changed:
        logger.warning("the run in %s goes on with another config (%s)", folder, changes)


def _is_in(key: str, keys: Iterable[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaves; an empty list or mapping is a leaf."""
    children = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(children, dict) or not children:
        return {prefix: node}
    path = f"{prefix}." if prefix else ""
    return {key: leaf for name, child in children.items() for key, leaf in _flatten(child, f"{path}{name}").items()}
