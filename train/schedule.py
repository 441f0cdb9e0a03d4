"""Learning rate over a run, as a pure function of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleConfig:
    kind: str = "cosine"  # cosine | constant, after the warm-up
    warmup: float = 0.03  # share of all steps if below 1, else a number of steps
    final: float = 0.0  # where the cosine ends, as a share of the peak

    def __post_init__(self) -> None:
        if self.kind not in ("cosine", "constant"):
            raise ValueError(f"schedule.kind={self.kind!r} is unknown; choose cosine or constant")
        if self.warmup < 0 or not 0 <= self.final <= 1:
            raise ValueError(f"schedule.warmup={self.warmup} must be ≥ 0 and schedule.final={self.final} in [0, 1]")


def num_steps(share_or_steps: float, steps: int) -> int:
    """A share of all steps if below 1, else a number of steps."""
    return round(share_or_steps * steps) if share_or_steps < 1 else int(share_or_steps)


def lr_multiplier(config: ScheduleConfig, step: int, steps: int) -> float:
    """The factor on every peak rate at `step` (0 … steps − 1). The first step already moves: it is not zero."""
    warmup = num_steps(config.warmup, steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "constant":
        return 1.0
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))
