"""How much a model reads of captions: what an image's codes cost in nats with its own caption and with another's.

    gain = [log P(codes | own caption) − log P(codes | another's)] / image

A model may draw plausible pictures of anything and have a gain of 0. It shows much sooner than retrieval does whether
training asks for captions at all.
"""

from collections.abc import Sequence

import torch

from data.batch import Batch
from mllm.pretrained import Unified
from tokenizer import DualCodes


def caption_gain(unified: Unified, captions: Sequence[str], codes: DualCodes) -> dict[str, float]:
    """Nats per image over all N × 2D codes: with its own caption, with its neighbour's in the list, with none."""
    others = [*captions[1:], captions[0]]
    own, other = (nats_per_image(unified, texts, codes) for texts in (captions, others))
    none = nats_per_image(unified, [None] * len(captions), codes)
    return {"own": own, "other": other, "none": none, "gain": other - own}


@torch.no_grad()
def nats_per_image(
    unified: Unified, captions: Sequence[str | None], codes: DualCodes, batch_size: int = 16
) -> float:
    """Mean of −log P(codes | caption) over the images, teacher-forced; codes int64[P, N, D] per branch."""
    total = 0.0
    for start in range(0, len(captions), batch_size):
        span = slice(start, start + batch_size)
        sums = unified.model(_drawings(unified, captions[span], DualCodes(codes.pixel[span], codes.semantic[span])))
        total += float(sums.pixel_loss.sum() + sums.semantic_loss.sum())
    return total / len(captions)


def _drawings(unified: Unified, captions: Sequence[str | None], codes: DualCodes) -> Batch:
    """One row per image: the prompt of generation, the image, padding as a document of its own."""
    vocabulary, num_patches = unified.vocabulary, codes.pixel.shape[1]
    prompts = [vocabulary.drawing_prompt(caption) for caption in captions]
    shape = (len(prompts), max(map(len, prompts)) + num_patches)
    input_ids = torch.full(shape, vocabulary.endoftext)
    position_ids, image_mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        length = len(prompt) + num_patches
        input_ids[row, :length] = torch.tensor(prompt + [vocabulary.image_pad] * num_patches)
        position_ids[row] = torch.cat([torch.arange(length), torch.arange(shape[1] - length)])
        image_mask[row, len(prompt) : length] = True
    labels = torch.full(shape, -100)
    return Batch(codes.pixel, codes.semantic, input_ids, position_ids, labels, image_mask, image_mask, [])
