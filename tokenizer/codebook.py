"""Codebooks of a residual quantizer, learned by exponential moving averages (paper §3.2; van den Oord et al. 2017).

A codebook and its statistics are fp32 buffers: as parameters they would be cast, partitioned and stepped by
mixed-precision engines, which is how peers' codebooks get corrupted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

SEARCH_CHUNK = 1 << 22  # distances held at once during the search: 16 MiB of fp32


class Codebook(nn.Module):
    """K vectors of width C with the running counts and sums that define them.

    `update` is a no-op in evaluation and after `freeze()`: `train()` alone must not thaw a frozen codebook.
    """

    embedding: Tensor  # float32[K, C]
    cluster_size: Tensor  # float32[K]
    vector_sum: Tensor  # float32[K, C]
    num_restarts: Tensor  # float32[], dead entries replaced since the log took it; not saved

    def __init__(self, num_entries: int, width: int, decay: float, restart_below: float):
        super().__init__()
        self.decay, self.restart_below = decay, restart_below
        self.frozen = False
        self.register_buffer("embedding", torch.randn(num_entries, width) / width**0.5)
        self.register_buffer("cluster_size", torch.zeros(num_entries))
        self.register_buffer("vector_sum", torch.zeros(num_entries, width))
        self.register_buffer("num_restarts", torch.zeros(()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Codebook":
        """Follows `.to(device)`, ignores `.bfloat16()` and `.half()`."""
        return super()._apply(keeping_dtype(fn), recurse)

    def freeze(self) -> None:
        """Stops all updates for good."""
        self.frozen = True

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """float32[M, C] → int64[M]: argmin_k ‖v − e_k‖², searched in chunks so that no M × K matrix is held."""
        half_norms = self.embedding.square().sum(1) / 2  # argmin of ‖e‖²/2 − v·e is the same and needs no ‖v‖²
        rows = max(1, SEARCH_CHUNK // self.embedding.shape[0])
        codes = vectors.new_empty(len(vectors), dtype=torch.int64)
        held = vectors.new_empty(min(rows, len(vectors)), len(half_norms))  # one buffer: new ones fragment the heap
        with exact_matmul(vectors.device.type):
            for part, found in zip(vectors.split(rows), codes.split(rows), strict=True):
                distances = torch.addmm(half_norms, part, self.embedding.T, alpha=-1, out=held[: len(part)])
                torch.argmin(distances, 1, out=found)
        return codes

    def lookup(self, codes: Tensor) -> Tensor:
        """int64[...] → float32[..., C]."""
        return nn.functional.embedding(codes, self.embedding)

    @torch.no_grad()
    def update(self, vectors: list[Tensor], codes: list[Tensor]) -> None:
        """One EMA step from pairs of float32[M, C] and int64[M] (one pair per depth that uses this codebook).

        size ← γ·size + (1 − γ)·count; sum ← γ·sum + (1 − γ)·Σ v; e = sum / Laplace-smoothed size. Entries whose size
        falls below `restart_below` restart at a vector of the batch. A vector that is not finite, on any rank, makes
        all ranks skip the step, as the optimizer does: it shows in the sum of all.
        """
        if self.frozen or not self.training:
            return
        counts, sums = torch.zeros_like(self.cluster_size), torch.zeros_like(self.vector_sum)
        for vector, code in zip(vectors, codes, strict=True):  # index_add_: a one-hot matrix would be M × K
            counts += torch.bincount(code, minlength=len(counts))
            sums.index_add_(0, code, vector)
        replacements = self._sample(vectors)
        synchronise_statistics(counts, sums, replacements)
        if not torch.isfinite(sums).all():
            return
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.vector_sum.lerp_(sums, 1 - self.decay)
        dead = self.cluster_size < self.restart_below
        self.vector_sum[dead] = replacements[dead]
        self.cluster_size[dead] = 1.0
        self.num_restarts += dead.sum()
        self.embedding.copy_(self.vector_sum / self._smoothed_size()[:, None])

    def _smoothed_size(self, epsilon: float = 1e-5) -> Tensor:
        total = self.cluster_size.sum()
        return (self.cluster_size + epsilon) / (total + len(self.cluster_size) * epsilon) * total

    def _sample(self, vectors: list[Tensor]) -> Tensor:
        """K vectors of the batch, drawn without replacement; a batch with fewer is tiled with a little noise."""
        candidates = torch.cat(vectors)
        num_entries, width = self.embedding.shape
        if len(candidates) < num_entries:
            candidates = candidates.repeat(-(-num_entries // len(candidates)), 1)
            candidates = candidates + torch.randn_like(candidates) * (0.01 / width**0.5)
        return candidates[torch.randperm(len(candidates), device=candidates.device)[:num_entries]]


def keeping_dtype(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`fn` of `Module._apply`, which moves or casts tensors, without the cast."""

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return move


def synchronise_statistics(counts: Tensor, sums: Tensor, replacements: Tensor) -> None:
    """Makes all ranks update alike: sums the statistics, takes the restart vectors of rank 0."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
        dist.all_reduce(sums)
        dist.broadcast(replacements, src=0)


@contextmanager
def exact_matmul(device_type: str) -> Iterator[None]:
    """fp32 products without autocast or reduced-precision GEMMs: rounded distances would pick other codes."""
    device_type = "cuda" if device_type == "cuda" else "cpu"  # the meta device has no autocast
    backend = (torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn).matmul
    before, backend.fp32_precision = backend.fp32_precision, "ieee"
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        backend.fp32_precision = before
