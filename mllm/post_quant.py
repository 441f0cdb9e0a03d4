"""Visual features of the tokenizer's own causal projections (arXiv 2503.14324, section 3.3; the released architecture).

After each quantizer the tokenizer projects the summed code vectors C -> H, causally over the positions of an image: the
features of patch p depend on the codes up to p alone, so that a language model may read them while it draws.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mllm.codebooks import root_mean_square
from tokenizer import Codebooks, DualCodes, ProjectionCache

Caches = Mapping[str, ProjectionCache]  # of the pixel and of the semantic projection


class PostQuantFeatures(nn.Module):
    """Frozen copies of both projections, as buffers and unsaved: see `FrozenCodebooks`.

    Deviation: features are normalised per patch. The residual stream of a vision tower, which they stand for, has a
    scale of its own, and a few dimensions that outweigh all others.
    """

    scales: Tensor

    def __init__(self, codebooks: Codebooks) -> None:
        super().__init__()
        if codebooks.pixel_out is None or codebooks.semantic_out is None:
            raise ValueError("visual_features=post_quant needs the tokenizer's projections: use tokenizer.codebooks().")
        self.width: int = codebooks.pixel_out.out_width  # type: ignore[assignment]
        self.projections = nn.ModuleDict(
            {"pixel": frozen_copy(codebooks.pixel_out), "semantic": frozen_copy(codebooks.semantic_out)}
        )
        scales = torch.stack([root_mean_square(codebooks.pixel), root_mean_square(codebooks.semantic)])
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, code_sums: DualCodes, caches: Caches | None = None) -> DualCodes:
        """Unit-scale sums float32[B, N, C] -> features float[B, N, H], each branch; with caches, of the next."""
        features = []
        for scale, (branch, project) in zip(self.scales, self.projections.items(), strict=True):
            sums = getattr(code_sums, branch) * scale  # as the tokenizer knows them
            projected = project(sums, None if caches is None else caches[branch])
            features.append(F.layer_norm(projected, (self.width,)))
        return DualCodes(*features)


def frozen_copy(module: nn.Module) -> nn.Module:
    """The module with buffers in the place of parameters."""
    copy = deepcopy(module)
    for part in copy.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)
    return copy
