"""Model FLOPs of a batch: the products that the mathematics of the model asks for, and nothing that is computed twice.

A product of x[n, i] with a weight [i, o] takes 2·n·i·o forward, the same again for the gradient of x where something
below it learns, and the same again for that of the weight where it learns itself (6 a parameter and position where
everything learns: PaLM, arXiv 2204.02311, appendix B). Attention takes 4·A for every pair of a position and one that it
sees, A the width of all heads, and twice that backward; pairs are those of a causal mask inside each document. Text is
classified at labels alone, codes at the positions that are drawn. Recomputation, norms and activations do not count.
"""

from dataclasses import dataclass

from torch import nn

from data.batch import Batch
from mllm.model import UnifiedModel


@dataclass(frozen=True)
class Work:
    """What a batch asks for; may be a mean over batches."""

    positions: float
    pairs: float  # of a position with itself and each one before it in its document
    patches: float  # of all images, read or drawn
    text_targets: float
    visual_targets: float

    @classmethod
    def of(cls, batch: Batch) -> "Work":
        return cls(
            positions=batch.input_ids.numel(),
            pairs=int(batch.position_ids.sum()) + batch.position_ids.numel(),
            patches=int(batch.image_mask.sum()),
            text_targets=int((batch.labels != -100).sum()),
            visual_targets=int(batch.target_mask.sum()),
        )


def model_flops(model: UnifiedModel, work: Work) -> float:
    """Forward and backward, of one batch; `requires_grad` says what learns."""
    below = learns(model.llm) or learns(model.visual_embedding)  # so that gradients pass through the whole LLM
    return (
        _linear(model.llm.get_decoder(), work.positions, below)
        + _attention(model.llm.config, work.pairs, below)
        + _linear(model.llm.get_output_embeddings(), work.text_targets, below)
        + _linear(model.visual_embedding.up, work.patches, False)
        + _linear(model.visual_embedding.down, work.patches, learns(model.visual_embedding))
        + _head(model, "pixel", work.visual_targets, below)
        + _head(model, "semantic", work.visual_targets, below)
    )


def _linear(module: nn.Module, rows: float, gradient_of_input: bool) -> float:
    """All linear maps of a module; ZeRO-3's partitions have no shape, so their sizes are asked for."""
    maps = [m for m in module.modules() if isinstance(m, nn.Linear)]
    products = [(m.in_features * m.out_features, 1 + gradient_of_input + m.weight.requires_grad) for m in maps]
    return sum(2 * rows * size * passes for size, passes in products)


def _attention(config, pairs: float, backward: bool) -> float:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 4 * pairs * config.num_attention_heads * head_dim * config.num_hidden_layers * (1 + 2 * backward)


def _head(model: UnifiedModel, branch: str, targets: float, below: bool) -> float:
    head, visual = getattr(model, f"{branch}_head", None), model.visual
    if head is None:
        return 0
    config, learned = head.config, learns(head)
    backward = below or learned
    steps = targets * visual.depth
    layer = 4 * config.width**2 + 2 * config.width * config.mlp_width
    pairs = steps * (visual.depth + 1) / 2
    return (
        _linear(head.hidden_projection, targets, below)
        + _linear(head.code_projection, steps - targets, False)
        + 2 * steps * config.num_layers * layer * (1 + backward + learned)
        + 4 * pairs * config.num_layers * config.width * (1 + 2 * backward)
        + 2 * steps * visual.codebook_size * config.width * (1 + backward + learned)
    )


def learns(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
