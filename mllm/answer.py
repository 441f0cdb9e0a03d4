"""Answers about images (arXiv 2503.14324, section 3.3): batched greedy decoding of text."""

from collections.abc import Sequence

import torch

from data.vocabulary import Vocabulary
from mllm.decoding import CachedDecoder, inference, left_pad
from mllm.model import UnifiedModel
from tokenizer import DualCodes


def answer(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    questions: Sequence[str],
    codes: Sequence[DualCodes | None],
    max_new_tokens: int = 128,
) -> list[str]:
    """One answer per question; codes: int64[N, D] per branch of the image it is about, or None.

    An answer ends with its turn, after `max_new_tokens`, or where the LLM's context does.
    """
    if len(questions) != len(codes):
        raise ValueError(f"there are {len(questions)} questions but {len(codes)} images: give one or None for each.")
    if not questions:
        return []
    num_patches = model.visual.num_patches
    prompts = [
        vocabulary.answering_prompt(question, None if image is None else num_patches)
        for question, image in zip(questions, codes, strict=True)
    ]
    with inference(model):
        return [vocabulary.decode(ids) for ids in _greedy(model, vocabulary, prompts, codes, max_new_tokens)]


def _greedy(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    prompts: list[list[int]],
    codes: Sequence[DualCodes | None],
    max_new_tokens: int,
) -> list[list[int]]:
    """The new ids of each row, up to its end of turn."""
    ends = torch.tensor([vocabulary.im_end, vocabulary.endoftext], device=model.device)
    ids, mask = left_pad(prompts, vocabulary.endoftext, model.device)
    room = model.llm.config.max_position_embeddings - ids.shape[1]
    max_new_tokens = min(max_new_tokens, max(room, 1))
    decoder = CachedDecoder(model, mask, max_new_tokens)
    embeddings = model.embed(ids, ids == vocabulary.image_pad, _stack(codes, model))
    running = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    columns = []
    for _ in range(max_new_tokens):
        logits = model.llm.get_output_embeddings()(decoder.advance(embeddings))
        # Rows of the embedding beyond the vocabulary are padding of its size and spell nothing.
        column = logits[:, : len(vocabulary)].argmax(dim=-1)
        running &= ~torch.isin(column, ends)
        column = torch.where(running, column, vocabulary.im_end)
        if not running.any():
            break
        columns.append(column)
        embeddings = model.llm.get_input_embeddings()(column.unsqueeze(1))
    rows = torch.stack(columns, dim=1).tolist() if columns else [[] for _ in prompts]
    return [[token for token in row if token != vocabulary.im_end] for row in rows]


def _stack(codes: Sequence[DualCodes | None], model: UnifiedModel) -> DualCodes:
    """The images that are there: int64[B, N, D] per branch."""
    images = [image for image in codes if image is not None]
    if not images:
        return DualCodes(*torch.zeros(2, 0, *model.visual.shape, dtype=torch.int64, device=model.device))
    return DualCodes(*(torch.stack(branch).to(model.device) for branch in zip(*images, strict=True)))
