"""The loss of the unified model (arXiv 2503.14324, Eq. 6-8).

    L = -(1 / n) sum_i P_i,    P_i = log P(x_i)                              at text,
                               P_i = sum_d [log P(y_id) + log P(z_id)]       at visual positions.

`z_loss` adds z_loss · (log Σ exp logits)² to each code's −log P.

n counts the target positions of the whole global batch, over ranks and accumulation steps, so that how a batch is cut
into micro-batches never changes the gradient. The parts therefore stay sums until `loss` divides them.
"""

from typing import NamedTuple

from torch import Tensor

from mllm.config import LossWeights


class LossSums(NamedTuple):
    """Sums over the targets of one micro-batch; counts are int64.

    Losses are −log P and carry gradients; those of codes carry that of z_loss · z as well, z having none of its own
    (heads/cross_entropy.py).
    """

    text_loss: Tensor  # float32[]
    text_count: Tensor  # int64[]
    text_correct: Tensor  # int64[]
    pixel_loss: Tensor  # float32[D]
    semantic_loss: Tensor  # float32[D]
    visual_count: Tensor  # int64[], M
    pixel_correct: Tensor  # int64[D]
    semantic_correct: Tensor  # int64[D]
    pixel_z: Tensor  # float32[D], of (log Σ exp logits)²
    semantic_z: Tensor  # float32[D]


def loss(sums: LossSums, weights: LossWeights, num_global_targets: int | Tensor) -> Tensor:
    """This micro-batch's share float32[] of the global batch's loss: the shares of all micro-batches add up to it."""
    total = (
        weights.text * sums.text_loss
        + weights.pixel * (sums.pixel_loss + weights.z_loss * sums.pixel_z).sum()
        + weights.semantic * (sums.semantic_loss + weights.z_loss * sums.semantic_z).sum()
    )
    return total / num_global_targets
