"""How much a model reads of captions: what an image's codes cost in nats with its own caption and with another's.

    gain = [log P(codes | own caption) − log P(codes | another's)] / image

A model may draw plausible pictures of anything and have a gain of 0. It shows much sooner than retrieval does whether
training asks for captions at all.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from data.batch import Batch
from data.documents import ImageRef, drawing_document
from data.packing import collate
from data.vocabulary import Vocabulary
from mllm.pretrained import Unified
from tokenizer import DualCodes


def caption_gain(unified: Unified, captions: Sequence[str], codes: DualCodes) -> dict[str, float]:
    """Nats per image over all N × 2D codes: with its own caption, with its neighbour's in the list, with none."""
    others = [*captions[1:], captions[0]]
    own, other = (nats_per_image(unified, texts, codes) for texts in (captions, others))
    none = nats_per_image(unified, [None] * len(captions), codes)
    return {"own": own, "other": other, "none": none, "gain": other - own}


@torch.no_grad()
def nats_per_image(unified: Unified, captions: Sequence[str | None], codes: DualCodes, batch_size: int = 16) -> float:
    """Mean of −log P(codes | caption) over the images, teacher-forced; codes int64[P, N, D] per branch."""
    total = 0.0
    for start in tqdm(range(0, len(captions), batch_size), desc="caption gain", unit="batch", disable=None):
        span = slice(start, start + batch_size)
        batch = _drawings(unified.vocabulary, captions[span], DualCodes(codes.pixel[span], codes.semantic[span]))
        sums = unified.model(batch)
        total += float(sums.pixel_loss.sum() + sums.semantic_loss.sum())
    return total / len(captions)


class _CodesInMemory:
    """Codes that no store holds, for documents to refer to."""

    def __init__(self, codes: DualCodes):
        self.dual, self.num_patches, self.depth = codes, *codes.pixel.shape[1:]

    def check(self, index: int) -> None:
        """They come from the tokenizer as it is: nothing can be wrong with them."""

    def codes_of(self, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self.dual.pixel[index].numpy(), self.dual.semantic[index].numpy()) for index in indices]


def _drawings(vocabulary: Vocabulary, captions: Sequence[str | None], codes: DualCodes) -> Batch:
    """The documents of training, one a row."""
    store = _CodesInMemory(codes)
    documents = [
        drawing_document(vocabulary, ImageRef(store, row), caption, str(row)) for row, caption in enumerate(captions)
    ]
    return collate(
        [[document] for document in documents], max(map(len, documents)), vocabulary.endoftext, *codes.pixel.shape[1:]
    )
