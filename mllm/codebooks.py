"""The tokenizer's frozen codebooks inside the unified model: e(.) of Eq. 5 and of the visual embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer import Codebooks, DualCodes


def root_mean_square(codebook: Tensor) -> Tensor:
    """The scale float32[] of a codebook's entries."""
    return codebook.detach().float().square().mean().sqrt().clamp(min=1e-12)


def unit_scale(codebook: Tensor) -> Tensor:
    """Codebook divided by the root mean square of its entries: float32[G, K, C].

    Deviation: the paper uses the vectors as they are. The factor is one constant per codebook, which the projection
    behind it can absorb; it only frees the initial learning speed from the scale that a tokenizer happens to have.
    """
    return codebook.detach().float() / root_mean_square(codebook)


class FrozenCodebooks(nn.Module):
    """Two codebooks float32[G, K, C]; G = 1 when shared over depth, else D.

    Buffers and never parameters, which engines would cast and partition; not saved, since the tokenizer's folder holds
    them.
    """

    pixel: Tensor
    semantic: Tensor

    def __init__(self, codebooks: Codebooks) -> None:
        super().__init__()
        self.register_buffer("pixel", unit_scale(codebooks.pixel), persistent=False)
        self.register_buffer("semantic", unit_scale(codebooks.semantic), persistent=False)

    def vectors(self, branch: str, codes: Tensor) -> Tensor:
        """All depths: int64[..., D] -> float32[..., D, C]; `branch` is pixel or semantic."""
        codebook: Tensor = getattr(self, branch)
        num_books, codebook_size, _ = codebook.shape
        first_row = torch.arange(num_books, device=codes.device) * codebook_size
        return F.embedding(codes + first_row, codebook.flatten(0, 1))

    def vectors_at(self, branch: str, codes: Tensor, depth: int) -> Tensor:
        """One depth, counted from 0: int64[...] -> float32[..., C]."""
        codebook: Tensor = getattr(self, branch)
        return F.embedding(codes, codebook[min(depth, len(codebook) - 1)])

    def sums(self, codes: DualCodes) -> DualCodes:
        """Codes of whole patches -> summed vectors of each branch, float32[B, N, C]."""
        return DualCodes(*(self.vectors(branch, getattr(codes, branch)).sum(dim=-2) for branch in codes._fields))
