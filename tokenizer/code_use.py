"""How much of its codebooks a branch uses; a branch has one codebook, or one per depth, which are counted apart."""

import torch
from torch import Tensor

from tokenizer.quantizer import ResidualQuantizer


def count_codes(quantizer: ResidualQuantizer, codes: Tensor) -> Tensor:
    """int64[B, N, D] → how often each entry is used, int64[G, K]; G codebooks as in `stacked_codebooks`."""
    num_books, size = len(quantizer.codebooks), quantizer.config.codebook_size
    if num_books > 1:
        codes = codes + size * torch.arange(num_books, device=codes.device)
    return torch.bincount(codes.flatten(), minlength=num_books * size).view(num_books, size)


def usage(counts: Tensor) -> Tensor:
    """[G, K] → float64[G], the share of a codebook's entries in use."""
    return (counts > 0).double().mean(dim=1)


def perplexity(counts: Tensor) -> Tensor:
    """[G, K] → float64[G], exp(entropy): as many entries, used evenly, would carry as much."""
    counts = counts.double()
    return torch.special.entr(counts / counts.sum(dim=1, keepdim=True)).sum(dim=1).exp()
