"""Every rank runs every module in every step, whatever its batch holds.

Under ZeRO-3 a module's forward and backward each gather its parameters by a collective of all ranks. A rank whose batch
has no image, no generated patch or no supervised text would skip the projector, a head or the text classifier, and the
others would wait for it for ever. The two functions here give such a batch one slice of zero weight instead, connected
to the graph so that the backward pass runs through everything too. (One and not none: kernels written for CUDA need not
accept empty tensors.) Nothing else in the model depends on what a batch holds.
"""

import torch
from torch import Tensor

from heads.cross_entropy import IGNORE
from mllm.config import VisualSpec
from tokenizer import DualCodes


def at_least_one_image(codes: DualCodes, visual: VisualSpec) -> DualCodes:
    """int64[B, N, D] per branch -> int64[max(B, 1), N, D]; the caller embeds all and places the first B."""
    if len(codes.pixel):
        return codes
    nothing = torch.zeros(1, *visual.shape, dtype=torch.int64, device=codes.pixel.device)
    return DualCodes(nothing, nothing)


def predicting_rows(hidden_states: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states that predict the positions of `mask`, each from the position before it.

    hidden_states: float[S, T, E]; mask: bool[S, T], never true at position 0; targets: int64[M, ...]. Returns
    float[M, E] and the targets, or one row whose target is ignored when M = 0.
    """
    rows = hidden_states[:, :-1][mask[:, 1:]]
    if len(rows):
        return rows, targets
    return hidden_states[0, :1], targets.new_full((1, *targets.shape[1:]), IGNORE)
