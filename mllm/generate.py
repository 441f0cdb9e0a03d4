"""Images from text (arXiv 2503.14324, section 3.3, inference): the LLM over positions, the two heads over depth.

Conditional and unconditional rows run side by side in one batch; no text logits are computed inside an image.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from data.vocabulary import Vocabulary
from heads.sampling import SamplingConfig, sample_codes, uniforms
from mllm.decoding import CachedDecoder, inference, left_pad
from mllm.model import UnifiedModel
from tokenizer import DualCodes, ProjectionCache

OnPosition = Callable[[int, DualCodes], None]


def generate_images(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    captions: Sequence[str],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    on_position: OnPosition | None = None,
) -> DualCodes:
    """Codes int64[B, N, D] of one image per caption and seed.

    `on_position(p, codes)` is called after each position with the codes so far, zero from patch p + 1 on (for previews
    and progress).
    """
    if not captions or not all(caption.strip() for caption in captions):
        raise ValueError("a caption to draw is empty: say in a few words what the picture should show.")
    if len(seeds) != len(captions):
        raise ValueError(f"there are {len(captions)} captions but {len(seeds)} seeds: give one seed per caption.")
    prompts = [vocabulary.drawing_prompt(caption) for caption in captions]
    if sampling.guided:
        prompts += [vocabulary.drawing_prompt(None)] * len(captions)
    with inference(model):
        return _generate(model, prompts, vocabulary.endoftext, sampling, seeds, on_position)


def _generate(
    model: UnifiedModel,
    prompts: list[list[int]],
    pad_id: int,
    sampling: SamplingConfig,
    seeds: Sequence[int],
    on_position: OnPosition | None,
) -> DualCodes:
    num_images, (num_patches, depth) = len(seeds), model.visual.shape
    codes = DualCodes(*torch.zeros(2, num_images, num_patches, depth, dtype=torch.int64, device=model.device))
    heads = {"pixel": model.pixel_head, "semantic": model.semantic_head}
    random = uniforms(seeds, num_patches, len(heads), depth).to(model.device)
    ids, mask = left_pad(prompts, pad_id, model.device)
    decoder = CachedDecoder(model, mask, num_patches - 1)
    caches = {branch: ProjectionCache(num_patches) for branch in heads}
    embeddings = model.llm.get_input_embeddings()(ids)
    for position in range(num_patches):
        hidden_states = decoder.advance(embeddings)
        for i, (branch, head) in enumerate(heads.items()):
            getattr(codes, branch)[:, position] = sample_codes(
                head,
                hidden_states,
                partial(model.code_vectors_at, branch),
                random[:, position, i],
                sampling.branch(branch),
            )
        if on_position is not None:
            on_position(position, codes)
        if position + 1 < num_patches:
            patch = DualCodes(*(branch[:, position : position + 1] for branch in codes))
            embeddings = model.visual_embedding(model.patch_features(patch, caches), position)
            embeddings = embeddings.repeat(len(prompts) // num_images, 1, 1)
    return codes
