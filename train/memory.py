"""Memory of one GPU while a stage trains, estimated before it runs.

States (ZeRO, arXiv 1910.02054, section 3): with Ψ parameters of which Ψ' learn, b bytes a weight and N GPUs,

    weights     b·Ψ             over N from stage 3 on
    gradients   b·Ψ'            over N from stage 2 on, where they are added up in fp32: 4·Ψ'
    optimizer   8·Ψ' + 4·Ψ'     over N from stage 1 on: Adam's two moments, and an fp32 copy of the weights where
                                DeepSpeed keeps one; another 4·Ψ' for the weights' average (`ema.decay`)

What is offloaded lies in the CPU's memory. Beside them stand buckets of gradients to reduce and, under ZeRO-3, the
weights that are gathered at a time (DeepSpeed's `stage3_max_live_parameters`). Activations are what the backward pass
needs of the forward pass, counted tensor by tensor in transformers' Llama kind (as arXiv 2205.05198 does for GPT); with
checkpointing a layer keeps its input alone, and one layer at a time is whole. Not counted: what the allocator leaves
unused between blocks, the CUDA context, NCCL's buffers, the maps of eager attention.
"""

from dataclasses import dataclass

from heads.cross_entropy import CHUNK_NUMBERS, MIN_CHUNK_ROWS
from heads.sampling import BRANCHES
from mllm.model import UnifiedModel
from train.engine_config import EngineConfig
from train.flops import Work, learns

MAX_LIVE = 1e9  # DeepSpeed's default of stage3_max_live_parameters


@dataclass(frozen=True)
class States:
    """Bytes on one GPU that do not depend on the batch."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.buffers


def states(model: UnifiedModel, engine: EngineConfig, num_gpus: int, averaged: bool = False) -> States:
    parameters = list(model.parameters())
    whole = sum(p.numel() for p in parameters)
    learned = sum(p.numel() for p in parameters if p.requires_grad)
    size, stage = engine.dtype.itemsize, engine.zero_stage
    has_copy = stage > 0 or engine.precision == "bf16"

    def share(first_stage: int) -> int:
        return num_gpus if stage >= first_stage else 1

    fp32_numbers = 2 + has_copy + averaged  # beside the gradient, of each weight that learns
    gathered = min(whole, MAX_LIVE) if stage == 3 else 0
    return States(
        weights=0 if engine.offload_parameters else size * whole / share(3),
        gradients=0 if engine.offload_optimizer and stage > 1 else engine.gradient_dtype.itemsize * learned / share(2),
        optimizer=0 if engine.offload_optimizer else 4 * fp32_numbers * learned / share(1),
        buffers=size * (2 * min(engine.bucket_size, learned) + gathered),
    )


def activations(model: UnifiedModel, work: Work, precision: str, checkpointing: bool) -> float:
    """Bytes that one micro-batch holds at the end of its forward pass."""
    config, size = model.llm.config, 4 if precision == "fp32" else 2
    residual = 2 if precision == "bf16" else 4
    below = learns(model.llm) or learns(model.visual_embedding)
    layer = _decoder_layer(config, size, residual, learns(model.llm)) if below else 0
    kept = residual * config.hidden_size if below else 0
    layers = config.num_hidden_layers
    per_position = layers * kept + layer if checkpointing else layers * layer
    weight = model.llm.get_output_embeddings().weight
    vocabulary, width = weight.shape
    text = _classifier(work.text_targets, 1, vocabulary, width, size, below, weight.requires_grad)
    heads = sum(_head(model, branch, work.visual_targets, size, below) for branch in BRANCHES)
    projector = 2 * size * config.hidden_size * work.patches if learns(model.visual_embedding) else 0
    embeddings = 2 * residual * config.hidden_size * work.positions
    return per_position * work.positions + embeddings + projector + text + heads


def _decoder_layer(config, size: int, residual: int, learned: bool) -> float:
    """Bytes a position; norms compute in fp32 and keep their input so."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    if not config._attn_implementation.startswith("flash"):
        keys = queries  # repeated for each head that shares them
    norm = config.hidden_size * (4 + learned * (residual + size))
    return 2 * norm + size * (2 * queries + 2 * keys) + size * (3 + learned) * config.intermediate_size


def _head(model: UnifiedModel, branch: str, targets: float, size: int, below: bool) -> float:
    head, visual = getattr(model, f"{branch}_head", None), model.visual
    if head is None or not (below or learns(head)):
        return 0
    width, learned = head.config.width, learns(head)
    block = size * ((6 + 2 * learned) * width + (1 + learned) * head.config.mlp_width)
    layers = head.config.num_layers * block
    if head.config.gradient_checkpointing:
        layers = block + head.config.num_layers * size * width
    states = targets * visual.depth * (layers + 2 * size * width)
    return states + _classifier(targets, visual.depth, visual.codebook_size, width, size, True, learned)


def _classifier(rows: float, depth: int, entries: int, width: int, size: int, below: bool, learned: bool) -> float:
    """Gradients of the chunked cross-entropy, which are there before the backward pass."""
    own = (size * depth * entries * width + 4 * entries * width) * learned
    return own + size * rows * depth * width * below


def logits(model: UnifiedModel, work: Work, precision: str) -> float:
    """The largest logits that are there at a time, beside their log-probabilities in fp32."""
    size = 4 if precision == "fp32" else 2
    text, codes = model.llm.config.vocab_size, model.visual.codebook_size
    chunks = [(work.text_targets, text), (work.visual_targets, codes)]
    return (4 + size) * max(n * min(rows, max(MIN_CHUNK_ROWS, CHUNK_NUMBERS // n)) for rows, n in chunks)
