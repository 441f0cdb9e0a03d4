"""Learned vectors of the codes that a head has drawn so far, in the place of the tokenizer's frozen codebook."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CodeTable(nn.Module):
    """float[G, K, W]: one table for all depths (G = 1), or one for each depth but the last, whose code nobody reads.

    Deviation: the paper's e(.) in Eq. 5 is the frozen codebook, whose vectors add up to what they quantize. moshi
    learns a table per depth. A module of its own, because ZeRO-3 gathers a parameter only in its owner's forward.
    """

    def __init__(self, num_tables: int, codebook_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(num_tables, codebook_size, width))

    def forward(self, codes: Tensor, first: int = 0) -> Tensor:
        """int64[M, d] of the depths from `first` on -> float[M, d, W]."""
        num_tables, codebook_size, _ = self.weight.shape
        depths = torch.arange(first, first + codes.shape[1], device=codes.device)
        return F.embedding(codes + depths.clamp(max=num_tables - 1) * codebook_size, self.weight.flatten(0, 1))
