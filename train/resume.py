"""May a run continue with this config? What changed since it began is listed; only harmless keys may differ, and those
that `loop.allow_changes` names, themselves or by what stands before them: [optimizer.learning_rate, data]."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from train.checkpoint import latest_checkpoint
from train.config import load_config
from train.schedule import num_steps

logger = logging.getLogger(__name__)

# Where and how often things are written or looked at, and how long the run is.
HARMLESS = (
    *("out", "tracking", "loop.steps", "loop.log_every", "loop.checkpoint_every"),
    *("loop.keep", "loop.save_in_background", "loop.allow_changes"),
    *("validation", "samples", "spikes", "peak_tflops", "sample_every", "health", "data.workers", "data.prefetch"),
)
SHARES = ("schedule.warmup", "adversarial.start")  # of loop.steps, where below 1


def refuse_changed_config(folder: str | Path, config: Any) -> None:
    """Raises ValueError if `folder` holds a checkpoint of a run whose config differs in keys that may not."""
    saved = Path(folder) / "config.yaml"
    if not saved.exists() or latest_checkpoint(Path(folder) / "checkpoints") is None:
        return
    everything = changes_since(saved, config)
    if "loop.steps" in everything and (moved := _moved_places(config, *everything["loop.steps"])):
        steps = "loop.steps: {} → {}".format(*everything["loop.steps"])
        logger.warning("the run in %s goes on with %s, which moves its shares of them: %s", folder, steps, moved)
    changes = {key: values for key, values in everything.items() if not _is_in(key, HARMLESS)}
    refused = {key: values for key, values in changes.items() if not _is_in(key, config.loop.allow_changes)}
    if refused:
        raise ValueError(
            f"the run in {folder} began with another config ({_list(refused)}): restore these keys, go on with the new "
            f"values by loop.allow_changes=[{','.join(refused)}], or choose another `out` for a new run"
        )
    if changes:
        logger.warning("the run in %s goes on with another config (%s)", folder, _list(changes))


def refuse_other_result(folder: str | Path, config: Any) -> None:
    """Raises ValueError if `folder` holds the result of a stage whose config differs in what decides its result."""
    if not (Path(folder) / "result.json").exists():
        return
    changes = changes_since(Path(folder) / "config.yaml", config)
    deciding = {key: values for key, values in changes.items() if key == "loop.steps" or not _is_in(key, HARMLESS)}
    if deciding:
        raise ValueError(
            f"the result in {folder} was made with another config ({_list(deciding)}): restore these keys, remove the "
            "folder, or choose another `out`"
        )


def changes_since(saved: Path, config: Any) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which `config` differs from the file `saved`, with both values."""
    before = load_config(type(config), saved)  # keys that are newer than the file take their defaults
    old, new = (_flatten(OmegaConf.to_container(OmegaConf.structured(c))) for c in (before, config))
    return {key: (old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)}


def _moved_places(config: Any, old_steps: int, new_steps: int) -> str:
    """What begins or ends after a share of all steps, and is elsewhere now; give steps, 1 or more, to keep it."""
    flat = _flatten(OmegaConf.to_container(OmegaConf.structured(config)))
    places = {key: [num_steps(flat[key], steps) for steps in (old_steps, new_steps)] for key in SHARES if key in flat}
    return "; ".join(f"{key} from step {old} to {new}" for key, (old, new) in places.items() if old != new)


def _list(changes: dict[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{key}: {old} → {new}" for key, (old, new) in changes.items())


def _is_in(key: str, keys: Iterable[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaves; an empty list or mapping is a leaf."""
    children = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(children, dict) or not children:
        return {prefix: node}
    path = f"{prefix}." if prefix else ""
    return {key: leaf for name, child in children.items() for key, leaf in _flatten(child, f"{path}{name}").items()}
