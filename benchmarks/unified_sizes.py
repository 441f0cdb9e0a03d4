"""Sizes, a model and a batch of drawings for measuring the unified model: the paper's 3B, or a scale model of it."""

from dataclasses import dataclass

import torch

from data.batch import Batch
from heads.config import DepthHeadConfig
from heads.cross_entropy import IGNORE
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from tokenizer import Codebooks
from train.flops import Work, model_flops

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
    """Of one training step, by part (train/flops.py); recomputing does not count."""
    work = Work.of(batch)
    return {
        "llm": model_flops(model, Work(work.positions, work.pairs, work.patches, 0, 0)),
        "text": model_flops(model, Work(0, 0, 0, work.text_targets, 0)),
        "heads": model_flops(model, Work(0, 0, 0, 0, work.visual_targets)),
    }
