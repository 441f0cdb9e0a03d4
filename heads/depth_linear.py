"""Linear maps of a depth transformer's perceptron, without bias: one for all depths, or one per depth (as in moshi)."""

import torch
from torch import Tensor, nn


class SharedLinear(nn.Linear):
    """The same weights at every depth."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__(in_width, out_width, bias=False)

    def forward(self, x: Tensor, first: int) -> Tensor:  # type: ignore[override]
        """float[M, d, in] of the depths from `first` on -> float[M, d, out]."""
        return super().forward(x)


class LinearPerDepth(nn.Module):
    """Each depth its own weights, float[D, out, in]; one batched product over depths, not a loop."""

    def __init__(self, depth: int, in_width: int, out_width: int) -> None:
        super().__init__()
        bound = in_width**-0.5  # nn.Linear's, of each depth's matrix
        self.weight = nn.Parameter(torch.empty(depth, out_width, in_width).uniform_(-bound, bound))

    def forward(self, x: Tensor, first: int) -> Tensor:
        """float[M, d, in] of the depths from `first` on -> float[M, d, out]."""
        weight = self.weight[first : first + x.shape[1]]
        return (x.transpose(0, 1) @ weight.transpose(1, 2)).transpose(0, 1)
