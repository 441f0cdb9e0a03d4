"""The unified model (arXiv 2503.14324, section 3.3): text and dual visual codes in one autoregressive sequence.

The hidden state at position i - 1 predicts what stands at i: text through the LLM's own classifier, a visual patch
through two depth heads, one per codebook.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.batch import Batch
from data.vocabulary import Vocabulary
from heads.cross_entropy import IGNORE, CrossEntropy
from heads.depth_transformer import DepthTransformer
from mllm.codebooks import FrozenCodebooks
from mllm.config import UnifiedConfig, VisualSpec
from mllm.embedding import VisualEmbedding
from mllm.llm import build_llm
from mllm.loss import LossSums
from mllm.post_quant import Caches, PostQuantFeatures
from mllm.uniform import at_least_one_image, predicting_rows
from tokenizer import Codebooks, DualCodes, DualTokenizer
from tokenizer.codebook import keeping_dtype


class UnifiedModel(nn.Module):
    """LLM, visual embedding, pixel head and semantic head, around the tokenizer's frozen codebooks."""

    def __init__(
        self,
        config: UnifiedConfig,
        visual: VisualSpec,
        vocab_size: int,
        codebooks: Codebooks,
        *,
        dtype: torch.dtype = torch.float32,
        llm: PreTrainedModel | None = None,
    ) -> None:
        """`llm` is given when the weights are to be loaded afterwards; else `config.llm` says how to make it."""
        super().__init__()
        _check_codebooks(codebooks, visual)
        self.config, self.visual, self.vocab_size = config, visual, vocab_size
        self.llm = build_llm(config.llm, vocab_size, dtype) if llm is None else llm
        self.codebooks = FrozenCodebooks(codebooks)
        hidden_size = self.llm.config.hidden_size
        grid = visual.grid if config.patch_positions else None
        self.post_quant = PostQuantFeatures(codebooks) if config.visual_features == "post_quant" else None
        width = visual.code_dim if self.post_quant is None else self.post_quant.width
        self.visual_embedding = VisualEmbedding(config.visual_input, width, hidden_size, grid).to(dtype)
        if config.heads is not None:
            sizes = (hidden_size, visual.code_dim, visual.depth, visual.codebook_size)
            self.pixel_head = DepthTransformer(config.heads, *sizes).to(dtype)
            self.semantic_head = DepthTransformer(config.heads, *sizes).to(dtype)

    def forward(self, batch: Batch) -> LossSums:
        """Sums of Eq. 7 and 8 over the batch's targets."""
        codes = DualCodes(batch.pixel, batch.semantic)
        embeddings = self.embed(batch.input_ids, batch.image_mask, codes, self._hidden_images(batch))
        hidden_states = self.decode_packed(embeddings, batch.position_ids)
        text = self._text_loss(hidden_states, batch.labels)
        pixel = self._head_loss("pixel", hidden_states, batch)
        semantic = self._head_loss("semantic", hidden_states, batch)
        return LossSums(
            text_loss=text.loss[0],
            text_count=(batch.labels != IGNORE).sum(),
            text_correct=text.correct[0],
            pixel_loss=pixel.loss,
            semantic_loss=semantic.loss,
            visual_count=batch.target_mask.sum(),
            pixel_correct=pixel.correct,
            semantic_correct=semantic.correct,
            pixel_z=pixel.z,
            semantic_z=semantic.z,
        )

    def embed(self, input_ids: Tensor, image_mask: Tensor, codes: DualCodes, hidden: Tensor | None = None) -> Tensor:
        """Text embeddings with the images' embeddings in their places.

        input_ids: int64[S, T]; image_mask: bool[S, T]; codes: int64[B, N, D] per branch, in row-major order of the
        mask; hidden: bool[B], images whose features are zeros. Returns float[S, T, E].
        """
        num_images = len(codes.pixel)
        features = self.patch_features(at_least_one_image(codes, self.visual))
        if hidden is not None and num_images:
            features = DualCodes(*(feature * ~hidden[:, None, None] for feature in features))
        visual = self.visual_embedding(features)
        embeddings = self.llm.get_input_embeddings()(input_ids)
        places = image_mask.nonzero(as_tuple=True)
        return embeddings.index_put(places, visual[:num_images].flatten(0, 1).to(embeddings.dtype))

    def patch_features(self, codes: DualCodes, caches: Caches | None = None) -> DualCodes:
        """What the visual embedding reads of int64[B, N, D] per branch: float[B, N, C or H]; with caches, of the
        patches that come next."""
        sums = self.codebooks.sums(codes)
        return sums if self.post_quant is None else self.post_quant(sums, caches)

    def code_vectors(self, branch: str, codes: Tensor) -> Tensor:
        """e(.) of Eq. 5, as the head of `branch` knows it: codes int64[M, D] -> float[M, D, C or W]."""
        table = getattr(self, f"{branch}_head").code_table
        return self.codebooks.vectors(branch, codes) if table is None else table(codes)

    def code_vectors_at(self, branch: str, codes: Tensor, depth: int) -> Tensor:
        """The same of one depth, counted from 0: int64[B] -> float[B, C or W]."""
        table = getattr(self, f"{branch}_head").code_table
        if table is None:
            return self.codebooks.vectors_at(branch, codes, depth)
        return table(codes.unsqueeze(1), depth).squeeze(1)

    def decode_packed(self, embeddings: Tensor, position_ids: Tensor) -> Tensor:
        """The LLM's last hidden states float[S, T, E] of packed rows; no document sees another.

        transformers finds the documents itself where position ids restart, given that there is neither a mask nor a
        cache. Its flash attention looks for them only in a batch of one row, hence the flattening, which changes
        nothing: each row begins with a document of its own.
        """
        shape = embeddings.shape
        if self.llm.config._attn_implementation.startswith("flash"):
            embeddings, position_ids = embeddings.flatten(0, 1).unsqueeze(0), position_ids.reshape(1, -1)
        output = self.llm.get_decoder()(inputs_embeds=embeddings, position_ids=position_ids, use_cache=False)
        return output.last_hidden_state.view(shape)

    def _hidden_images(self, batch: Batch) -> Tensor | None:
        """Some of the generated images, bool[B], while training.

        Deviation: a caption tells the log of the number of captions, some 8 nats, about an image of 1,800 nats, and the
        other patches tell them as well: next to nothing of the gradient asks a small model to read captions. Where the
        patches are hidden, all that can be known of an image comes from its caption.
        """
        if not self.training or self.config.visual_dropout == 0:
            return None
        generated = batch.target_mask[batch.image_mask].view(-1, self.visual.num_patches).any(1)
        return generated & (torch.rand(len(generated), device=generated.device) < self.config.visual_dropout)

    def _text_loss(self, hidden_states: Tensor, labels: Tensor) -> CrossEntropy:
        mask = labels != IGNORE
        rows, targets = predicting_rows(hidden_states, mask, labels[mask])
        return self.llm.get_output_embeddings()(rows, targets)

    def head(self, branch: str) -> DepthTransformer:
        """The head of the `pixel` or of the `semantic` codes."""
        if self.config.heads is None:
            raise ValueError(
                "the model has no heads (model.heads: null), so it reads images and cannot draw any: draw with another "
                "model, and train this one on documents whose images are only read."
            )
        return getattr(self, f"{branch}_head")

    def _head_loss(self, branch: str, hidden_states: Tensor, batch: Batch) -> CrossEntropy:
        if self.config.heads is None and not batch.target_mask.any():
            none = torch.zeros(self.visual.depth, device=hidden_states.device)
            return CrossEntropy(none, none, none.long())
        head = self.head(branch)
        is_target = batch.target_mask[batch.image_mask]  # bool[B * N]
        codes = getattr(batch, branch).flatten(0, 1)[is_target]  # int64[M, D]
        rows, codes = predicting_rows(hidden_states, batch.target_mask, codes)
        states = head(rows, self.code_vectors(branch, codes.clamp(min=0)))
        return head.classifiers(states, codes, self.config.loss_weights.z_loss)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "UnifiedModel":
        """Buffers follow the device and never the dtype.

        Engines cast the whole module to bfloat16. That would round the codebooks, whose sums would no longer be the
        tokenizer's features, and the LLM's rotary frequencies, whose error grows with the position.
        """
        buffers = {id(buffer) for buffer in self.buffers()}

        return super()._apply(lambda tensor: (keeping_dtype(fn) if id(tensor) in buffers else fn)(tensor), recurse)

    @property
    def device(self) -> torch.device:
        return self.codebooks.pixel.device

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        codebooks: Codebooks | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **download: Any,
    ) -> "UnifiedModel":
        """Reads a folder of `save_pretrained`, or a repository of the hub; without `codebooks`, from its tokenizer."""
        from mllm.pretrained import load_model

        return load_model(name, codebooks, dtype, device=device, **download)

    def save_pretrained(
        self,
        folder: str | Path,
        vocabulary: Vocabulary,
        tokenizer: DualTokenizer,
        weights: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype | None = None,
        max_shard_size: str = "5GB",
    ) -> None:
        """Writes config.json, the weights, vocabulary/ and tokenizer/; see `mllm.pretrained.save_unified`."""
        from mllm.pretrained import save_unified

        save_unified(self, folder, vocabulary, tokenizer, weights, dtype, max_shard_size)


def _check_codebooks(codebooks: Codebooks, visual: VisualSpec) -> None:
    for branch in DualCodes._fields:
        codebook = getattr(codebooks, branch)
        books, entries, width = codebook.shape
        if books not in (1, visual.depth) or (entries, width) != (visual.codebook_size, visual.code_dim):
            raise ValueError(
                f"the {branch} codebook has shape {tuple(codebook.shape)} but the model expects "
                f"(1 or {visual.depth}, {visual.codebook_size}, {visual.code_dim}): use the tokenizer it was made for."
            )
