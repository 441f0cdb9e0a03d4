"""Cross-entropy fused with its classifier (arXiv 2503.14324, Eq. 7 and 8), in chunks of rows.

729 positions x 8 depths x 2 codebooks x 16,384 codes are 191 M logits per image: they are never held together. Each
chunk's logits are turned into the loss and at once into the gradients of states and weight, so the backward pass only
scales these (the loss is the root of the graph; nothing is computed twice).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

IGNORE = -100

# Logits held at a time. Fewer rows than the minimum would make a large vocabulary spend its time adding up gradients.
CHUNK_NUMBERS = 2**24
MIN_CHUNK_ROWS = 512


class CrossEntropy(NamedTuple):
    """Sums over rows. Where a z-loss is asked for, `loss` is still -log P, but its gradient is that of
    loss + z_loss x z: both come from one pass over the logits.
    """

    loss: Tensor  # float32[D]
    z: Tensor  # float32[D], of (log sum exp logits)^2; a value without a gradient of its own
    correct: Tensor  # int64[D], rows whose target has the highest logit


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, states: Tensor, weight: Tensor, targets: Tensor, z_loss: float, with_gradients: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_rows, depth, _ = states.shape
        loss, z = torch.zeros(2, depth, dtype=torch.float32, device=states.device)
        correct = torch.zeros(depth, dtype=torch.int64, device=states.device)
        grad_states = torch.empty_like(states) if with_gradients and ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if with_gradients and ctx.needs_input_grad[1] else None
        chunk = max(MIN_CHUNK_ROWS, CHUNK_NUMBERS // weight.shape[1])
        for d in range(depth):
            # One depth's gradient is added up in float32, in place where it is float32 itself: bfloat16 would lose the
            # later chunks.
            sum_weight = None if grad_weight is None else grad_weight[d].float()
            for start in range(0, num_rows, chunk):
                rows, target = states[start : start + chunk, d], targets[start : start + chunk, d]
                counted = (target != IGNORE).unsqueeze(1)
                target = target.clamp(min=0).unsqueeze(1)
                logits = rows @ weight[d].T
                correct[d] += ((logits.argmax(dim=1, keepdim=True) == target) & counted).sum()
                log_probs = torch.log_softmax(logits, dim=1, dtype=torch.float32)
                log_prob = log_probs.gather(1, target)
                log_partition = logits.gather(1, target) - log_prob
                loss[d] -= (log_prob * counted).sum()
                z[d] += (log_partition.square() * counted).sum()
                if not with_gradients:
                    del logits, log_probs  # or the next chunk's would stand beside them
                    continue
                del logits
                grad_logits = log_probs.exp_()  # in place: softmax (1 + 2 z_loss log_partition) - one-hot
                if z_loss:
                    grad_logits *= 1 + 2 * z_loss * log_partition
                grad_logits.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))
                grad_logits = grad_logits.to(states.dtype)
                if grad_states is not None:
                    grad_states[start : start + chunk, d] = (grad_logits @ weight[d]) * counted
                if sum_weight is not None:
                    sum_weight += grad_logits.T @ (rows * counted)
                del log_probs, grad_logits
            if grad_weight is not None and sum_weight is not None:
                grad_weight[d] = sum_weight
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.mark_non_differentiable(z, correct)
        return loss, z, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_states, grad_weight = ctx.saved_tensors
        scale = grad_loss.view(-1, 1)
        # In place: a second copy of a classifier's gradient would be half a gigabyte. autograd refuses a second
        # backward pass through tensors that were changed.
        if grad_states is not None:
            grad_states.mul_(scale)
        if grad_weight is not None:
            grad_weight.mul_(scale.unsqueeze(-1))
        return grad_states, grad_weight, None, None, None


def chunked_cross_entropy(states: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> CrossEntropy:
    """Sums of cross-entropy of `states @ weight^T`, per depth.

    states: float[M, D, W]; weight: float[D, K, W]; targets: int64[M, D], IGNORE where a row does not count; z_loss:
    weight of the squared log-partition in the gradient, which keeps logits from drifting (PaLM, arXiv 2204.02311).
    """
    return CrossEntropy(*_ChunkedCrossEntropy.apply(states, weight, targets, z_loss, torch.is_grad_enabled()))


class DepthClassifiers(nn.Module):
    """D separate classifiers W -> K, each trained at its own depth.

    The loss is computed in this module's forward because ZeRO-3 gathers a parameter only in its owner's forward.
    """

    def __init__(self, depth: int, codebook_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(depth, codebook_size, width))

    def forward(self, states: Tensor, targets: Tensor, z_loss: float = 0.0) -> CrossEntropy:
        """states: float[M, D, W]; targets: int64[M, D]."""
        return chunked_cross_entropy(states, self.weight, targets, z_loss)

    def logits(self, state: Tensor, depth: int) -> Tensor:
        """One depth's logits (counted from 0): float[M, W] -> float[M, K]."""
        return state @ self.weight[depth].T


class TextClassifier(nn.Linear):
    """A language-model head that also computes its own loss, for the same two reasons: memory and ZeRO-3."""

    @classmethod
    def sharing(cls, head: nn.Linear) -> "TextClassifier":
        """The same parameter (so also the same tie to the embedding) behind this class."""
        classifier = cls(1, 1, bias=False)
        classifier.in_features, classifier.out_features = head.in_features, head.out_features
        classifier.weight = head.weight
        return classifier

    def forward(  # type: ignore[override]
        self, states: Tensor, targets: Tensor | None = None
    ) -> Tensor | CrossEntropy:
        """states: float[M, E] -> logits float[M, V], or with targets int64[M] their CrossEntropy (D = 1)."""
        if targets is None:
            return super().forward(states)
        return chunked_cross_entropy(states.unsqueeze(1), self.weight.unsqueeze(0), targets.unsqueeze(1))
