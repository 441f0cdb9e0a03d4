"""Tokens that a pretrained language model has never seen: rows for them in its embedding and in its classifier.

Qwen2.5 has every token that the layout of conversations and images needs; other vocabularies are given what they lack
(data/vocabulary.py).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def add_tokens(
    llm: PreTrainedModel, new_ids: Sequence[int], whole: Callable[[nn.Parameter], AbstractContextManager]
) -> None:
    """Makes each row of `new_ids` the mean of the rows before all of them, and adds the rows that are missing.

    Drawn at random they would be far from what the layers know, and the classifier would choose them at random. Inside
    `whole(parameter)` a parameter may be read and written.
    """
    first, size = min(new_ids), max(new_ids) + 1
    if size > llm.config.vocab_size:
        llm.resize_token_embeddings(size, mean_resizing=False)
    weights = {id(m.weight): m.weight for m in (llm.get_input_embeddings(), llm.get_output_embeddings())}  # tied: one
    for weight in weights.values():
        with whole(weight):
            weight[list(new_ids)] = weight[:first].mean(dim=0, dtype=torch.float32).to(weight.dtype)
