"""Projections between the tower's width H and the codebooks' width C, before and after each quantizer (paper §3.2).

The paper says that features are projected and not how. `linear` is the least that works; `attention` is the block of
the authors' released code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionCache:
    """Keys and values float[B, heads, N, head_width] of the positions so far; fixed shapes: steps can be compiled."""

    def __init__(self, num_positions: int):
        self.num_positions = num_positions
        self.keys: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the next n positions, float[B, heads, n, head_width] → of all N, and which each sees, bool[n, N]."""
        if self.keys is None:
            batch, num_heads, _, width = key.shape
            # Zeros, because what a mask hides is still multiplied, by nothing.
            self.keys, self.values = key.new_zeros(2, batch, num_heads, self.num_positions, width)
            self.numbers = torch.arange(self.num_positions, device=key.device)
            self.place = torch.zeros(1, dtype=torch.int64, device=key.device)
        places = self.numbers[: key.shape[2]] + self.place
        self.keys.index_copy_(2, places, key)
        self.values.index_copy_(2, places, value)
        self.place += len(places)
        return self.keys, self.values, self.numbers <= places.unsqueeze(1)


class LinearProjection(nn.Module):
    """LayerNorm and a linear map, float[B, N, in] → float[B, N, out].

    The norm keeps the scale of the codes independent of the tower's residual stream, whose size differs by layer.
    """

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.out_width = out_width
        self.norm = nn.LayerNorm(in_width)
        self.linear = nn.Linear(in_width, out_width)

    def forward(self, features: Tensor, cache: ProjectionCache | None = None) -> Tensor:
        """A position depends on itself alone, so a cache has nothing to keep."""
        return self.linear(self.norm(features))


class AttentionProjection(nn.Module):
    """x float[B, N, in] → y float[B, N, out], of the released code:

        y = W·norm(x) + attention(norm(x));   y ← y + mlp(norm(y))

    Each norm is its own. One width divides the other and is less, for which of them is C says whether it is causal.
    With a cache, x is the next positions.
    """

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        if in_width == out_width or max(in_width, out_width) % min(in_width, out_width):
            raise ValueError(
                f"an attention projection from {in_width} to {out_width} needs one width to be a multiple of the "
                "other: choose another code_dim, or projection: linear"
            )
        self.out_width = out_width
        self.attention_norm = nn.LayerNorm(in_width)
        self.attention = ProjectionAttention(in_width, out_width)
        self.residual_norm = nn.LayerNorm(in_width)
        self.residual = nn.Linear(in_width, out_width)
        self.mlp_norm = nn.LayerNorm(out_width)
        self.mlp = GatedMLP(out_width)

    def forward(self, features: Tensor, cache: ProjectionCache | None = None) -> Tensor:
        y = self.residual(self.residual_norm(features)) + self.attention(self.attention_norm(features), cache)
        return y + self.mlp(self.mlp_norm(y))


class ProjectionAttention(nn.Module):
    """Self-attention that changes the width, with heads as wide as the narrower side.

    H → C averages its H / C heads. C → H concatenates them and is causal: what the language model will know of position
    p depends on the codes up to p alone. Keys have no bias, which the softmax would cancel.
    """

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        width, self.head_width = max(in_width, out_width), min(in_width, out_width)
        self.expands = out_width > in_width
        self.query = nn.Linear(in_width, width)
        self.key = nn.Linear(in_width, width, bias=False)
        self.value = nn.Linear(in_width, width)
        self.output = nn.Linear(out_width, out_width)
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.value.bias)

    def forward(self, x: Tensor, cache: ProjectionCache | None = None) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # [B, heads, N, head_width]
            for linear in (self.query, self.key, self.value)
        )
        if cache is None:
            h = F.scaled_dot_product_attention(q, k, v, is_causal=self.expands)
        else:
            k, v, seen = cache.append(k, v)
            h = F.scaled_dot_product_attention(q, k, v, seen)
        return self.output(h.transpose(1, 2).flatten(2) if self.expands else h.mean(1))


class GatedMLP(nn.Module):
    """w2(gelu(w0·n) ⊙ w1·n) with n = norm(x), twice as wide inside; float[B, N, width] → the same."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        return self.down(F.gelu(self.gate(n), approximate="tanh") * self.up(n))


PROJECTIONS: dict[str, type[LinearProjection] | type[AttentionProjection]] = {
    "linear": LinearProjection,
    "attention": AttentionProjection,
}
