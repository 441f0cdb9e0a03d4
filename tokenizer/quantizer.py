"""Residual quantization of a feature map into D codes per position (paper §3.2; Lee et al. 2022).

r_0 = z;   k_d = argmin_k ‖r_{d−1} − e_k‖²;   r_d = r_{d−1} − e(k_d)
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenizer.codebook import Codebook
from tokenizer.config import QuantizerConfig


class Quantized(NamedTuple):
    features: Tensor  # float[B, N, C], Σ_d e(k_d) with the straight-through gradient
    codes: Tensor  # int64[B, N, D]
    commitment: Tensor  # float[], mean over depths of ‖z − sg(Σ_{d'≤d} e(k_d'))‖² (Eq. 1 at every depth, RQ-VAE)


class ResidualQuantizer(nn.Module):
    """z float[B, N, C] → D codes per position, from one codebook for all depths or one per depth."""

    def __init__(self, config: QuantizerConfig):
        super().__init__()
        self.config = config
        self.codebooks = nn.ModuleList(
            Codebook(config.codebook_size, config.code_dim, config.ema_decay, config.restart_below)
            for _ in range(1 if config.shared else config.depth)
        )

    def codebook(self, depth: int) -> Codebook:
        return self.codebooks[0 if self.config.shared else depth]  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Quantized:
        """z float[B, N, C]; in training mode the codebooks take one EMA step (or D of them with `per_depth`)."""
        target = z.float()
        residuals, codes = self._quantize(target.detach().flatten(0, 1))
        partial_sums = torch.stack([target.detach() - r.view_as(target) for r in residuals[1:]])
        commitment = (target - partial_sums).square().mean()
        features = (target + (partial_sums[-1] - target).detach()).to(z.dtype)
        return Quantized(features, codes.view(*z.shape[:-1], -1), commitment)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """float[B, N, C] → int64[B, N, D], never updating."""
        residual, codes = z.float().flatten(0, 1), []
        for depth in range(self.config.depth):
            codes.append(self.codebook(depth).nearest(residual))
            residual = residual - self.codebook(depth).lookup(codes[-1])
        return torch.stack(codes, -1).view(*z.shape[:-1], -1)

    def embed(self, codes: Tensor) -> Tensor:
        """int64[B, N, D] → float32[B, N, C] = Σ_d e(k_d)."""
        return torch.stack([self.codebook(d).lookup(codes[..., d]) for d in range(codes.shape[-1])]).sum(0)

    def stacked_codebooks(self) -> Tensor:
        """float32[G, K, C]; G = 1 for a codebook shared over depth, D otherwise."""
        return torch.stack([self.codebook(d).embedding for d in range(len(self.codebooks))])

    def freeze(self) -> None:
        for depth in range(len(self.codebooks)):
            self.codebook(depth).freeze()

    def _quantize(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """float32[M, C] → residuals r_0 … r_D and codes int64[M, D], updating the codebooks as configured.

        `per_depth`: a depth looks its vectors up before its own update, and the next depth searches the updated book.
        Deviation: `per_forward` averages the residual that each depth quantized. The released `rq_ema` keeps views of
        one tensor that it then subtracts from in place, and so averages what is left after the last depth instead.
        """
        residuals, codes = [z], []
        for depth in range(self.config.depth):
            codebook = self.codebook(depth)
            codes.append(codebook.nearest(residuals[-1]))
            residuals.append(residuals[-1] - codebook.lookup(codes[-1]))
            if self.config.ema_update == "per_depth":
                codebook.update([residuals[-2]], [codes[-1]])
        if self.config.ema_update == "per_forward":
            if self.config.shared:
                self.codebook(0).update(residuals[:-1], codes)
            else:
                for depth in range(self.config.depth):
                    self.codebook(depth).update([residuals[depth]], [codes[depth]])
        return residuals, torch.stack(codes, -1)
