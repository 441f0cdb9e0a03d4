"""AdamW with the usual two groups, and one guarded optimisation step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.05
    gradient_clipping: float = 1.0  # norm; 0: none

    def __post_init__(self) -> None:
        check_adamw(self.learning_rate, self.betas)


def check_adamw(learning_rate: float, betas: list[float]) -> None:
    """Raises ValueError for what AdamW cannot work with."""
    if not learning_rate >= 0:
        raise ValueError(f"optimizer.learning_rate={learning_rate} must be a number from 0 up")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optimizer.betas={betas} must be two numbers from 0 to below 1, such as [0.9, 0.95]")


def build_adamw(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable ones of `parameters`; vectors (biases, norms, scalars) are not decayed."""
    trainable = [p for p in parameters if p.requires_grad]
    matrices = {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay}
    vectors = {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0}
    return torch.optim.AdamW([matrices, vectors], lr=config.learning_rate, betas=tuple(config.betas), fused=True)  # type: ignore[arg-type]


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The moments of a checkpoint; rates, betas and decay stay those of the config, which may have been changed."""
    groups = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    optimizer.load_state_dict({**state, "param_groups": [{**own, "params": saved["params"]} for own, saved in groups]})


def optimise(optimizer: torch.optim.Optimizer, loss: Tensor, clipping: float) -> Tensor:
    """Backward and `apply_gradients`, for a step of one batch in one process; returns the gradient norm."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return apply_gradients(optimizer, loss, clipping)


def apply_gradients(optimizer: torch.optim.Optimizer, loss: Tensor, clipping: float) -> Tensor:
    """Clip, step; returns the norm of the gradient. A loss or gradient that is not finite changes no weight."""
    norm = nn.utils.clip_grad_norm_(parameters_of(optimizer), clipping or math.inf)
    if torch.isfinite(norm) and torch.isfinite(loss):
        optimizer.step()
    return norm


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
