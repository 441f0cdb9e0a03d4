"""The LLM, one step after the other, in shapes that never change: what torch.compile and CUDA graphs ask for.

All of the cache is attended to at each step, and a mask hides what is not written yet; the place is a number on the
device. That costs some attention and saves nothing by itself, so it is not the default.
"""

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, StaticLayer

from mllm.decoding import CachedDecoder
from mllm.model import UnifiedModel


class StaticDecoder(CachedDecoder):
    """A CachedDecoder whose steps of one position are all alike."""

    multiple = 128  # prompts of about the same length then share a compiled step

    def __init__(self, model: UnifiedModel, mask: Tensor, num_new: int) -> None:
        super().__init__(model, mask, num_new)
        attention = model.llm.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"the static cache hides places by a mask, which {attention} does not take: load the model with "
                "attn_implementation sdpa, or sample with runtime=eager."
            )
        self.places = torch.arange(self.mask.shape[1], device=mask.device)
        self.place = torch.zeros((), dtype=torch.int64, device=mask.device)
        torch._dynamo.mark_static_address(self.place)

    def new_layer(self, max_length: int) -> CacheLayerMixin:
        return StaticLayer(max_length)

    def advance(self, embeddings: Tensor) -> Tensor:
        """The next t positions' embeddings float[R, t, E] -> the last position's hidden state float[R, E]."""
        places = self.places[: embeddings.shape[1]] + self.place
        # Padding sees itself, or its softmax would be over nothing; nobody else sees it.
        itself = self.places == places.unsqueeze(1)
        seen = (self.places <= places.unsqueeze(1)) & self.mask[:, None, None] | itself
        hidden = torch.zeros_like(seen, dtype=embeddings.dtype).masked_fill(~seen, torch.finfo(embeddings.dtype).min)
        output = self.decoder(
            inputs_embeds=embeddings,
            attention_mask=hidden,
            position_ids=self.position_ids.index_select(1, places),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.place += embeddings.shape[1]
        return output.last_hidden_state[:, -1]
