"""Steps whose loss or gradient leaps: counted, and written down with the documents that they were made of."""

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

MIN_STEPS = 20  # seen before a step is called a spike


@dataclass(frozen=True)
class SpikeConfig:
    """A spike is a step whose value is beyond so many times the median of the last `window` steps; 0: never."""

    loss: float = 2.0
    grad_norm: float = 5.0
    window: int = 100

    def __post_init__(self) -> None:
        if self.window < MIN_STEPS or min(self.loss, self.grad_norm) < 0:
            raise ValueError(f"spikes: window={self.window} must be at least {MIN_STEPS}, the two factors 0 or above")


class Spikes:
    """Reads what all ranks agree on, so that all see the same spikes."""

    def __init__(self, config: SpikeConfig) -> None:
        self.factors = {"loss": config.loss, "grad_norm": config.grad_norm}
        self.recent: dict[str, deque[float]] = {name: deque(maxlen=config.window) for name in self.factors}
        self.num = 0

    def look_at(self, **values: float) -> dict[str, float]:
        """One step's finite loss and grad_norm; of each that leaps, the value and the median before it."""
        found: dict[str, float] = {}
        for name, value in values.items():
            recent, factor = self.recent[name], self.factors[name]
            if factor and len(recent) >= MIN_STEPS and value > factor * (usual := median(recent)):
                found |= {name: value, f"{name}_median": usual}
            recent.append(value)
        self.num += bool(found)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"num": self.num, **{name: list(recent) for name, recent in self.recent.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num = state["num"]
        for name, recent in self.recent.items():
            recent.extend(state[name])
