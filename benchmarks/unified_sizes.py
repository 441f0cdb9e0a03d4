"""Sizes, a model and a batch of drawings for measuring the unified model: the paper's 3B, or a scale model of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.batch import Batch
from heads.config import DepthHeadConfig
from heads.cross_entropy import IGNORE
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from tokenizer import Codebooks

CAPTION = 30  # text positions before an image, two after it


@dataclass(frozen=True)
class Sizes:
    """Qwen-2.5-3B, two heads, 27 × 27 × 8 codes of 16,384, rows of 4096; or all widths and counts / `scale`."""

    scale: int = 1
    num_layers: int = 36
    context_length: int = 4096
    grid: tuple[int, int] = (27, 27)
    gradient_checkpointing: bool = False

    @property
    def config(self) -> UnifiedConfig:
        s = self.scale
        llm = LLMConfig(
            hidden_size=2048 // s,
            intermediate_size=11008 // s,
            num_hidden_layers=self.num_layers,
            num_attention_heads=max(16 // s, 1),
            num_key_value_heads=max(2 // s, 1),
            gradient_checkpointing=self.gradient_checkpointing,
        )
        heads = DepthHeadConfig(width=1024 // s, num_heads=max(16 // s, 1), mlp_width=4096 // s)
        return UnifiedConfig(llm=llm, heads=heads)

    @property
    def visual(self) -> VisualSpec:
        return VisualSpec(self.grid, depth=8, codebook_size=16384 // self.scale, code_dim=32, tokenizer_id="random")

    @property
    def vocab_size(self) -> int:
        return 151936 // self.scale


def build(sizes: Sizes, device: str, dtype: torch.dtype) -> UnifiedModel:
    """Random weights, made where they stay."""
    torch.manual_seed(0)
    with torch.device(device):
        books = Codebooks(*torch.randn(2, 1, sizes.visual.codebook_size, sizes.visual.code_dim))
        return UnifiedModel(sizes.config, sizes.visual, sizes.vocab_size, books, dtype=dtype)


def drawings(sizes: Sizes, rows: int, device: str) -> Batch:
    """Rows filled with captions and the images to draw from them: no document asks more of the heads."""
    length = CAPTION + sizes.visual.num_patches + 2
    per_row, rest = divmod(sizes.context_length, length)
    kinds = torch.tensor([0] * CAPTION + [1] * sizes.visual.num_patches + [2] * 2)
    kinds = torch.cat([kinds.repeat(per_row), torch.full((rest,), 3)]).repeat(rows, 1)
    positions = torch.cat([torch.arange(length).repeat(per_row), torch.arange(rest)]).repeat(rows, 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(sizes.vocab_size, kinds.shape, generator=generator)
    shape = (2, rows * per_row, *sizes.visual.shape)
    pixel, semantic = torch.randint(sizes.visual.codebook_size, shape, generator=generator)
    labels = torch.where(kinds == 2, ids, IGNORE)
    batch = Batch(pixel, semantic, ids, positions, labels, kinds == 1, kinds == 1, [])
    return batch.to(device)


def flops(model: UnifiedModel, batch: Batch) -> dict[str, float]:
    """Of one training step: 6 per weight and position that it multiplies, and attention; recomputing does not count."""
    config, num_targets = model.llm.config, int(batch.target_mask.sum())
    decoder = sum(p.numel() for name, p in model.llm.get_decoder().named_parameters() if "embed_tokens" not in name)
    lengths = _document_lengths(batch.position_ids)
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    attention = 6 * config.num_hidden_layers * width * float(lengths.square().sum())  # causal: half of two products
    num_labels = int((batch.labels != IGNORE).sum())
    depth = model.visual.depth
    blocks = sum(p.numel() for head in (model.pixel_head, model.semantic_head) for p in head.blocks.parameters())
    classifiers = sum(head.classifiers.weight.numel() for head in (model.pixel_head, model.semantic_head))
    return {
        "llm": 6.0 * decoder * batch.input_ids.numel() + attention,
        "text": 6.0 * num_labels * config.hidden_size * config.vocab_size,
        "heads": 6.0 * num_targets * (depth * blocks + classifiers),
    }


def _document_lengths(position_ids: Tensor) -> Tensor:
    """A document ends where the next position id is 0."""
    ends = torch.cat([position_ids.flatten()[1:] == 0, torch.ones(1, dtype=torch.bool, device=position_ids.device)])
    return position_ids.flatten()[ends].double() + 1
