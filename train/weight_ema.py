"""An exponential moving average of the weights, smoother than the last step's; sheets and the export may use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class WeightEmaConfig:
    decay: float = 0.0  # 0 keeps no average
    export: bool = True  # sheets of reconstructions and export/ use it

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay={self.decay} must be at least 0 and below 1")


class WeightEma:
    """average ← γ·average + (1 − γ)·weight after every step, γ = min(decay, (1 + step) / (10 + step)).

    Early on γ is small, so that the random start is soon forgotten. Codebooks, averages already, stay as they are.
    """

    def __init__(self, model: nn.Module, config: WeightEmaConfig):
        self.config = config
        averaged = {name: p for name, p in model.named_parameters() if p.requires_grad and config.decay}
        self.names, self.weights = list(averaged), list(averaged.values())
        self.averages = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights that `step` (0, 1, …) left."""
        if self.averages:
            decay = min(self.config.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.weights], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the average for its weights, if there is one and the config asks for it."""
        if not self.config.export:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in zip(self.weights, self.averages, strict=True):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        return dict(zip(self.names, self.averages, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if list(state) != self.names:
            raise ValueError("the average is of other weights")
        for average, saved in zip(self.averages, state.values(), strict=True):
            average.copy_(saved)
