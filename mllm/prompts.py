"""What a row of a batch begins with: text, and images in their places."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data.vocabulary import Vocabulary
from mllm.decoding import left_pad
from mllm.model import UnifiedModel
from tokenizer import DualCodes


class Prompt(NamedTuple):
    ids: list[int]
    images: Sequence[DualCodes] = ()  # int64[N, D] per branch, of the images that `ids` hold, in order


def embed_prompts(model: UnifiedModel, vocabulary: Vocabulary, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """-> embeddings float[R, T, E], padded on the left, and the mask bool[R, T] of what is not padding."""
    ids, mask = left_pad([prompt.ids for prompt in prompts], vocabulary.endoftext, model.device)
    images = [image for prompt in prompts for image in prompt.images]
    codes = torch.zeros(2, 0, *model.visual.shape, dtype=torch.int64, device=model.device)
    if images:
        codes = torch.stack([torch.stack(branch) for branch in zip(*images, strict=True)]).to(model.device)
    return model.embed(ids, ids == vocabulary.image_pad, DualCodes(*codes)), mask
