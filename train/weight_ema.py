"""An exponential moving average of the weights, smoother than the last step's; pictures and the export may use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightEmaConfig:
    decay: float = 0.0  # 0 keeps no average
    export: bool = True  # held-out losses, pictures on the way and export/ use it

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay={self.decay} must be at least 0 and below 1")


class WeightEma:
    """average ← γ·average + (1 − γ)·weight after every step, γ = min(decay, (1 + step) / (10 + step)).

    Early on γ is small, so that the random start is soon forgotten. Codebooks, averages already, stay as they are.
    """

    def __init__(self, weights: dict[str, Tensor], config: WeightEmaConfig):
        self.config = config
        self.names, self.weights = (list(weights), list(weights.values())) if config.decay else ([], [])
        self.averages = [weight.detach().clone() for weight in self.weights]

    @classmethod
    def of(cls, model: nn.Module, config: WeightEmaConfig) -> "WeightEma":
        """Of everything that the model learns by gradients."""
        return cls({name: p for name, p in model.named_parameters() if p.requires_grad}, config)

    @property
    def is_shown(self) -> bool:
        """Whether the average is to stand in for the weights where a model is looked at."""
        return bool(self.averages) and self.config.export

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights that `step` (0, 1, …) left."""
        if self.averages:
            decay = min(self.config.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.weights], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the average for its weights, if there is one and the config asks for it."""
        if not self.is_shown:
            yield
            return
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """The weights become the average and the average the weights."""
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
