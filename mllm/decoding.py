"""The LLM, one step after the other: rows of different length, padded on the left, with a key-value cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from mllm.model import UnifiedModel


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, written into memory that is allocated once.

    transformers' DynamicLayer copies everything it holds at each step, its StaticLayer attends to positions not yet
    written. When drawing a hundred small images those copies took half of the time.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length, self.length = max_length, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys = key_states.new_empty(*key_states.shape[:2], self.max_length, key_states.shape[-1])
        self.values = value_states.new_empty(*value_states.shape[:2], self.max_length, value_states.shape[-1])

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length


@contextmanager
def inference(model: UnifiedModel) -> Iterator[None]:
    """No gradients, evaluation mode, and plain fp32 products on CPUs."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    was_training, precision = model.training, matmul.fp32_precision
    # In training mode with gradient checkpointing, transformers drops its caches.
    model.eval()
    # Where fp32 products compute in bf16, oneDNN sets up each tiny product of a step's attention anew: 11 x slower.
    matmul.fp32_precision = "ieee"
    try:
        with torch.no_grad():
            yield
    finally:
        matmul.fp32_precision = precision
        model.train(was_training)


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """-> input_ids int64[R, T], mask bool[R, T] of what is not padding."""
    length = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(length, device=device) >= length - lengths.unsqueeze(1)


class CachedDecoder:
    """Hidden states of left-padded rows; each row sees itself only, from position 0 at its first token."""

    multiple = 1  # of which the length of the cache is one

    def __init__(self, model: UnifiedModel, mask: Tensor, num_new: int | Sequence[int]) -> None:
        """mask: bool[R, T] of the prompts; num_new: how many positions may follow in any row, or in each."""
        limit, each = model.llm.config.max_position_embeddings, torch.as_tensor(num_new)
        lengths = mask.sum(dim=1).cpu()
        if (lengths + each > limit).any():
            row = int((lengths + each).argmax())
            raise ValueError(
                f"a prompt ({int(lengths[row])} tokens) with {int(each.expand(len(mask))[row])} new ones exceeds the "
                f"language model's context of {limit}: shorten the prompt."
            )
        num_new = int(each.max())
        self.decoder = model.llm.get_decoder()
        max_length = -(-(mask.shape[1] + num_new) // self.multiple) * self.multiple
        self.cache = Cache(layers=[self.new_layer(max_length) for _ in range(model.llm.config.num_hidden_layers)])
        self.mask = torch.cat([mask, mask.new_ones(len(mask), max_length - mask.shape[1])], dim=1)
        self.position_ids = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        self.length = 0

    def new_layer(self, max_length: int) -> CacheLayerMixin:
        return PreallocatedLayer(max_length)

    def advance(self, embeddings: Tensor) -> Tensor:
        """The next t positions' embeddings float[R, t, E] -> the last position's hidden state float[R, E]."""
        start, self.length = self.length, self.length + embeddings.shape[1]
        output = self.decoder(
            inputs_embeds=embeddings,
            attention_mask=self.mask[:, : self.length],
            position_ids=self.position_ids[:, start : self.length],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]
