"""Projections between the tower's width H and the codebooks' width C, before and after each quantizer (paper §3.2)."""

from torch import Tensor, nn


class LinearProjection(nn.Module):
    """LayerNorm and a linear map, float[B, N, in] → float[B, N, out].

    The norm keeps the scale of the codes independent of the tower's residual stream, whose size differs by layer.
    """

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(in_width)
        self.linear = nn.Linear(in_width, out_width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.norm(features))
