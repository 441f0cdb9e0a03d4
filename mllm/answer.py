"""Answers about images (arXiv 2503.14324, section 3.3): batched decoding of text, token by token."""

from collections.abc import Iterator, Sequence

import torch

from data.vocabulary import Vocabulary
from heads.sampling import DrawSettings, draw, uniforms
from mllm.decoding import CachedDecoder, inference
from mllm.model import UnifiedModel
from mllm.prompts import Prompt, embed_prompts
from tokenizer import DualCodes

GREEDY = DrawSettings(temperature=0.0, top_k=0, top_p=1.0)


def answer(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    questions: Sequence[str],
    codes: Sequence[DualCodes | None],
    max_new_tokens: int = 128,
) -> list[str]:
    """One greedy answer per question; codes: int64[N, D] per branch of the image it is about, or None.

    An answer ends with its turn, after `max_new_tokens`, or where the LLM's context does.
    """
    if len(questions) != len(codes):
        raise ValueError(f"there are {len(questions)} questions but {len(codes)} images: give one or None for each.")
    if not questions:
        return []
    num_patches = model.visual.num_patches
    prompts = [
        Prompt(vocabulary.answering_prompt(question, None), ())
        if image is None
        else Prompt(vocabulary.answering_prompt(question, num_patches), (image,))
        for question, image in zip(questions, codes, strict=True)
    ]
    rows: list[list[int]] = [[] for _ in prompts]
    with inference(model):
        for column in replies(model, vocabulary, prompts, max_new_tokens):
            for row, token in zip(rows, column, strict=True):
                row += [] if token is None else [token]
    return [vocabulary.decode(ids) for ids in rows]


def replies(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    prompts: Sequence[Prompt],
    max_new_tokens: int | Sequence[int],
    settings: DrawSettings = GREEDY,
    seeds: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """The next token of each row, None once its turn has ended, until all have; for use inside `inference`.

    A row ends by itself, after its `max_new_tokens`, or with the context. What it says depends on its own prompt, limit
    and seed alone; `seeds` may be left out where `settings` draw nothing. Answers are text: `vocabulary.silent` is
    never said.
    """
    context = model.llm.config.max_position_embeddings
    wanted = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    limits = [min(most, max(context - len(row.ids), 1)) for most, row in zip(wanted, prompts, strict=True)]
    embeddings, mask = embed_prompts(model, vocabulary, prompts)
    decoder = CachedDecoder(model, mask, limits)
    random = uniforms(range(len(prompts)) if seeds is None else seeds, context).to(model.device)
    num_steps = torch.tensor(limits, device=model.device)
    ends, silent = (torch.tensor(ids, device=model.device) for ids in (vocabulary.ends, vocabulary.silent))
    running = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    for step in range(max(limits)):
        # Rows of the embedding beyond the vocabulary are padding of its size and spell nothing.
        logits = model.llm.get_output_embeddings()(decoder.advance(embeddings))[:, : len(vocabulary)]
        logits[:, silent] = float("-inf")
        column = draw(logits, random[:, step], settings)
        running &= ~torch.isin(column, ends) & (step < num_steps)
        if not running.any():
            return
        yield [token if alive else None for token, alive in zip(column.tolist(), running.tolist(), strict=True)]
        embeddings = model.llm.get_input_embeddings()(column.unsqueeze(1))
