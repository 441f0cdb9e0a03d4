"""The vision tower with two taps: a thin adapter over a Hugging Face SigLIP vision model (paper §3.2).

Only this file knows how the tower is built; another ViT needs the same four methods.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, SiglipVisionConfig, SiglipVisionModel

from tokenizer.config import TokenizerConfig


class VisionTower(nn.Module):
    """`embed` → `run` up to a tap → … → `pool`; hidden states float[B, N, H], layers counted from 1."""

    def __init__(self, vision_config: dict[str, Any], attention: str = "sdpa"):
        super().__init__()
        self.config = SiglipVisionConfig(**vision_config)
        self.model = SiglipVisionModel._from_config(self.config, attn_implementation=attention)

    @classmethod
    def from_pretrained(cls, path: str, attention: str = "sdpa") -> "VisionTower":
        """Loads a SigLIP folder or hub id, a whole model or its vision part."""
        tower = cls(vision_config_of(path), attention)
        try:
            tower.model = SiglipVisionModel.from_pretrained(path, attn_implementation=attention)
        except OSError as error:
            raise FileNotFoundError(f"no tower weights at {path!r}: {str(error).splitlines()[0]}") from error
        return tower

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def num_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        side = self.config.image_size // self.config.patch_size
        return side, side

    def checkpoint_gradients(self) -> None:
        """From now on, layers in training mode keep their input alone and run again in the backward pass."""
        prefix = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        getattr(self.model, f"{prefix}_checkpointing_enable")({"use_reentrant": False})

    def embed(self, pixel_values: Tensor) -> Tensor:
        """float[B, 3, h, w] in [−1, 1] → float[B, N, H]."""
        expected = (3, self.image_size, self.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(f"images must be {expected} for this tower, not {tuple(pixel_values.shape[1:])}")
        return self.model.embeddings(pixel_values)

    def run(self, hidden_states: Tensor, first: int, last: int) -> Tensor:
        """Applies layers `first` … `last` inclusive."""
        for layer in self.model.encoder.layers[first - 1 : last]:
            output = layer(hidden_states, attention_mask=None)
            hidden_states = output if isinstance(output, Tensor) else output[0]
        return hidden_states

    def pool(self, hidden_states: Tensor) -> Tensor:
        """Final norm and attention pooling: float[B, N, H] → float[B, H], the image feature of SigLIP."""
        return self.model.head(self.model.post_layernorm(hidden_states))


def vision_config_of(path: str) -> dict[str, Any]:
    """The vision configuration of a SigLIP folder or hub id. Raises FileNotFoundError or ValueError."""
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"tower folder {path} has no config.json; train one with `dualtoken train-tower`")
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, json.JSONDecodeError) as error:
        raise FileNotFoundError(
            f"tower {path!r} is neither a folder here nor a reachable hub id; train one with `dualtoken train-tower`"
        ) from error
    config = getattr(config, "vision_config", config)
    if not isinstance(config, SiglipVisionConfig):
        raise ValueError(f"tower {path!r} is a {config.model_type} model; a SigLIP vision tower is needed")
    return config.to_dict()


def check_taps(config: TokenizerConfig, num_layers: int) -> None:
    """The semantic tap needs at least the layers up to it."""
    if config.semantic_layer > num_layers:
        raise ValueError(f"semantic_layer {config.semantic_layer} lies beyond the tower's {num_layers} layers")
