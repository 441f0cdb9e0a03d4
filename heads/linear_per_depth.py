"""Linear maps of which each depth has its own (as in moshi)."""

import torch
from torch import Tensor, nn


class LinearPerDepth(nn.Module):
    """Weights float[D, out, in], no bias; one batched product over depths, not a loop."""

    def __init__(self, depth: int, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(depth, out_width, in_width))

    def forward(self, x: Tensor) -> Tensor:
        """float[M, D, in] -> float[M, D, out]"""
        return (x.transpose(0, 1) @ self.weight.mT).transpose(0, 1)
