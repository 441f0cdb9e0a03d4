"""What counting alone achieves: the cross-entropy of held-out targets under the frequencies of the training targets.

A model that has learned nothing but how often each text token and each code occurs has this loss, so a next-token loss
says little without it. Frequencies are smoothed by adding one; codes are counted per codebook and per depth.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from data.batch import Batch
from train.distributed import World


class TargetCounts(NamedTuple):
    """How often each value is a target."""

    text: Tensor  # int64[1, V]
    pixel: Tensor  # int64[D, K]
    semantic: Tensor  # int64[D, K]


def count_targets(
    batches: Iterable[Batch], vocab_size: int, depth: int, codebook_size: int, world: World
) -> TargetCounts:
    """Counts over the batches of all ranks."""
    shapes = [(1, vocab_size), (depth, codebook_size), (depth, codebook_size)]
    counts = TargetCounts(*(torch.zeros(shape, dtype=torch.int64) for shape in shapes))
    for batch in batches:
        counts.text[0] += torch.bincount(batch.labels[batch.labels >= 0], minlength=vocab_size)
        is_target = batch.target_mask[batch.image_mask]
        if not is_target.any():
            continue
        for codes, count in ((batch.pixel, counts.pixel), (batch.semantic, counts.semantic)):
            for d, values in enumerate(codes.flatten(0, 1)[is_target].T):
                count[d] += torch.bincount(values, minlength=codebook_size)
    return TargetCounts(*(world.sum(count.to(world.device)).cpu() for count in counts))


def unigram_losses(training: TargetCounts, held_out: TargetCounts) -> dict[str, list[float]]:
    """Nats per held-out target: one number for text, one per depth for each codebook; [] without any."""
    losses = {}
    for name in TargetCounts._fields:
        smoothed = getattr(training, name).double() + 1
        log_probs = (smoothed / smoothed.sum(dim=1, keepdim=True)).log()
        seen = getattr(held_out, name)
        total = seen.sum(dim=1)
        losses[name] = (-(seen * log_probs).sum(dim=1) / total).tolist() if total.all() else []
    return losses
