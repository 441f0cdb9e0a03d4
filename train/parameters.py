"""Which parameters of the unified model a stage trains, and at which rate (Sec. 3.3: projector and heads, then all).

llm         the language model            projector   codes → its inputs
lora        adapters in its layers        heads       its hidden states → codes

Where `lora` is named the LLM has adapters (mllm/lora.py), and its own weights stay as they are.
"""

from dataclasses import dataclass, field

from torch import nn

from train.optimizer import check_adamw

# The parts that configs name, and the modules of the model that each consists of; adapters lie among the LLM's.
PARTS = {"llm": ("llm.",), "lora": (), "projector": ("visual_embedding.",), "heads": ("pixel_head.", "semantic_head.")}


@dataclass(frozen=True)
class PartsOptimizerConfig:
    """AdamW with a peak learning rate per part; vectors (biases, norms) are not decayed."""

    learning_rate: float = 5e-5
    projector_learning_rate: float | None = None  # null: learning_rate
    heads_learning_rate: float | None = None
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.0
    gradient_clipping: float = 1.0  # 0: none

    def __post_init__(self) -> None:
        for part in PARTS:
            check_adamw(self.rate_of(part), self.betas)

    def rate_of(self, part: str) -> float:
        own = {"projector": self.projector_learning_rate, "heads": self.heads_learning_rate}.get(part)
        return self.learning_rate if own is None else own


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a peak learning rate and a weight decay."""

    part: str
    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float


def group_parameters(model: nn.Module, trainable: list[str], config: PartsOptimizerConfig) -> list[ParameterGroup]:
    """Freezes every part that `trainable` does not name and groups the parameters of the others."""
    unknown = [part for part in trainable if part not in PARTS]
    if unknown or not trainable:
        raise ValueError(f"trainable={trainable} must name one or more of {', '.join(PARTS)}")
    absent = set(trainable) - {part_of(name) for name, _ in model.named_parameters()}
    if absent:
        raise ValueError(f"trainable names {', '.join(sorted(absent))}, of which this model has none: leave it out")
    groups = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in trainable)
    for part in trainable:
        own = [parameter for name, parameter in model.named_parameters() if part_of(name) == part]
        for is_matrix, decay in ((True, config.weight_decay), (False, 0.0)):
            chosen = [p for p in own if (_num_dimensions(p) >= 2) == is_matrix]
            if chosen:
                groups.append(ParameterGroup(part, chosen, config.rate_of(part), decay))
    return groups


def part_of(name: str) -> str:
    if ".lora_" in name:
        return "lora"
    for part, prefixes in PARTS.items():
        if name.startswith(prefixes):
            return part
    raise ValueError(f"parameter {name} belongs to none of the parts {', '.join(PARTS)}")


def _num_dimensions(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 flattens its partitions
