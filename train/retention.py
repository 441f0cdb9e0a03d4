"""Which checkpoints stay: the last ones, milestones, and the best by a metric of the log."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from train.checkpoint import checkpoint_step, list_checkpoints, remove_checkpoint
from train.run import read_log

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeepConfig:
    last: int = 2
    every: int = 0  # those at multiples of so many steps stay as well; 0: none
    best: str | None = None  # of those at steps where it was logged, the one of its lowest value too: validation.loss

    def __post_init__(self) -> None:
        if self.last < 1 or self.every < 0:
            raise ValueError(f"loop.keep: last={self.last} must be at least 1 and every={self.every} at least 0")


def prune(folder: Path, config: KeepConfig) -> None:
    """Deletes the checkpoints under `folder` that nothing keeps; the log stands beside `folder`."""
    found = {checkpoint_step(path): path for path in list_checkpoints(folder)}
    values = logged_values(folder.parent / "log.jsonl", config.best) if config.best else {}
    for step in found.keys() - steps_to_keep(found, config, values):
        remove_checkpoint(found[step])


def steps_to_keep(steps: Collection[int], config: KeepConfig, values: dict[int, float]) -> set[int]:
    """Of the `steps` that have checkpoints; `values` are those of the metric, by step."""
    milestones = [step for step in steps if config.every and step % config.every == 0]
    best = sorted((values[step], step) for step in steps if step in values)[:1]
    return {*sorted(steps)[-config.last :], *milestones, *(step for _, step in best)}


def logged_values(log: Path, metric: str) -> dict[int, float]:
    lines = read_log(log)
    values = {line["step"]: line[metric] for line in lines if line.get(metric) is not None}
    if lines and not values:
        names = sorted({name for line in lines for name in line if name.endswith("loss")})
        logger.warning("loop.keep.best=%s is not in %s so far, which has %s", metric, log, ", ".join(names))
    return values
