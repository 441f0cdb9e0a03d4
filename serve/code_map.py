"""Codes as pictures: one coloured square per patch, similar colours for similar code vectors."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizer import DualCodes


def palette(codebook: Tensor) -> Tensor:
    """Code vectors float[K, C] → uint8[K, 3], the same for the same codebook.

    The vectors' three principal axes become lightness and two hues; each axis is spread evenly by rank, so that colours
    differ however the vectors are distributed.
    """
    vectors = codebook.detach().double().cpu()
    vectors = vectors - vectors.mean(dim=0)
    axes = torch.linalg.svd(vectors, full_matrices=False).Vh[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()  # an axis has no direction of its own
    ranks = (vectors @ axes.T).argsort(dim=0, stable=True).argsort(dim=0, stable=True)
    share = torch.nn.functional.pad(ranks / max(len(vectors) - 1, 1), (0, 3 - len(axes)), value=0.5)
    lightness = 60 + 160 * share[:, 0]
    red, blue = 190 * (share[:, 1] - 0.5), 190 * (share[:, 2] - 0.5)
    colors = torch.stack([lightness + red, lightness - 0.4 * red - 0.4 * blue, lightness + blue], dim=1)
    return colors.clamp(0, 255).round().to(torch.uint8)


def code_map(codes: Tensor, colors: Tensor, grid: tuple[int, int], size: int) -> Image.Image:
    """Codes int64[N] of one depth → a picture of `size` pixels across."""
    pixels = colors[codes.cpu()].view(*grid, 3).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (size, size * grid[0] // grid[1]), Image.Resampling.NEAREST
    )


def randomised(codes: DualCodes, branch: str, codebook_size: int, seed: int = 0) -> DualCodes:
    """int64[N, D] per branch, with any codes in the place of one branch's."""
    own = getattr(codes, branch)
    random = torch.randint(codebook_size, own.shape, generator=torch.Generator().manual_seed(seed))
    return codes._replace(**{branch: random.to(own.device)})


def shuffled(codes: DualCodes, branch: str, seed: int = 0) -> DualCodes:
    """int64[N, D] per branch, with the patches of one branch in another order."""
    order = torch.randperm(len(codes.pixel), generator=torch.Generator().manual_seed(seed))
    return codes._replace(**{branch: getattr(codes, branch)[order.to(codes.pixel.device)]})
