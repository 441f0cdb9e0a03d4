"""May a run continue with this config? What changed since it began is listed; only harmless keys may differ."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from train.checkpoint import latest_checkpoint
from train.config import load_config

# Where and how often things are written or looked at, and how long the run is.
HARMLESS = (
    *("out", "tracking", "loop.steps", "loop.log_every", "loop.checkpoint_every"),
    *("validation", "samples", "spikes", "peak_tflops", "sample_every", "health", "data.workers", "data.prefetch"),
)


def refuse_changed_config(folder: str | Path, config: Any, harmless: tuple[str, ...] = HARMLESS) -> None:
    """Raises ValueError if `folder` holds a checkpoint of a run whose config differs in more than harmless keys."""
    saved = Path(folder) / "config.yaml"
    if not saved.exists() or latest_checkpoint(Path(folder) / "checkpoints") is None:
        return
    before = load_config(type(config), saved)  # keys that are newer than the file take their defaults
    old, new = (_flatten(OmegaConf.to_container(OmegaConf.structured(c))) for c in (before, config))
    changes = [
        f"{key}: {old.get(key)} → {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not any(key == h or key.startswith(f"{h}.") for h in harmless)
    ]
    if changes:
        raise ValueError(
            f"the run in {folder} began with another config ({'; '.join(changes)}): restore these keys, or choose "
            "another `out` for a new run"
        )


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaves; an empty list or mapping is a leaf."""
    children = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(children, dict) or not children:
        return {prefix: node}
    path = f"{prefix}." if prefix else ""
    return {key: leaf for name, child in children.items() for key, leaf in _flatten(child, f"{path}{name}").items()}
