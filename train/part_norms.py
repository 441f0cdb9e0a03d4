"""The norm of the gradient of each part of the model, whatever of it lies on other ranks.

ZeRO-1 to 3 compute the norm of the whole gradient group by group: every rank squares its own partition, and the sums
are added over ranks. Those norms are kept on their way, so that watching them adds neither a pass over the gradient nor
a collective. Without ZeRO every rank has the whole gradient, and they are computed here.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from train.parameters import ParameterGroup

ZERO_NORMS = ("get_grad_norm_direct", "complete_grad_norm_calculation_for_cpu_offload")  # one call each per group


class PartNorms:
    """Of the last step. The squares of the parts add up to the square of the norm of the whole gradient."""

    def __init__(self, optimizer: Any, groups: list[ParameterGroup], zero_stage: int) -> None:
        self.groups = groups
        # ZeRO-3 cuts large groups into several.
        places = optimizer.sub_group_to_group_id.values() if zero_stage == 3 else range(len(groups))
        self._parts = [groups[place].part for place in places]
        self._norms: list[Tensor] = []
        for name in ZERO_NORMS if zero_stage else ():
            setattr(optimizer, name, self._kept(getattr(optimizer, name)))

    def clear(self) -> None:
        """Before a step: ZeRO adds the norms of its own."""
        self._norms = []

    def measure(self) -> Tensor:
        """The norm of the whole gradient, float32[], where no ZeRO computes it."""
        self._norms = [_norm_of(group.parameters) for group in self.groups]
        return torch.linalg.vector_norm(torch.stack(self._norms))

    def by_part(self) -> dict[str, float]:
        """Nothing after a step that was skipped before norms were known; NaN where a gradient is not finite."""
        squares: dict[str, float] = {}
        for part, norm in zip(self._parts, map(float, self._norms), strict=False):
            # ZeRO writes −1 for what is not finite.
            squares[part] = squares.get(part, 0.0) + (norm**2 if norm >= 0 else math.nan)
        return {part: math.sqrt(square) for part, square in squares.items()}

    def _kept(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def keep(*arguments: Any, **options: Any) -> Tensor:
            self._norms.append(function(*arguments, **options))
            return self._norms[-1]

        return keep


def _norm_of(parameters: list[nn.Parameter]) -> Tensor:
    nothing = torch.zeros((), device=parameters[0].device)
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack([nothing, *norms]))
