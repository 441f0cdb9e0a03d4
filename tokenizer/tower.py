"""The vision tower with taps: a thin adapter over a Hugging Face vision transformer (paper §3.2).

What differs between kinds of towers stands in tokenizer/tower_families.py.
"""

from collections.abc import Collection
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tokenizer.attention import resolve_attention
from tokenizer.config import TokenizerConfig
from tokenizer.tower_families import FAMILIES, HALF, Family, vision_config_of


class VisionTower(nn.Module):
    """`embed` → `run` up to a tap → `patches` … → `pool`; layers are counted from 1.

    Hidden states are float[B, P + N, H]: N patches behind P tokens that are none, DINOv2's class token and registers
    (SigLIP: P = 0). Up to the semantic tap the P tokens run along, as in pretraining. There `patches` drops them, for
    the codes carry patches alone: what runs on from codes is float[B, N, H], which `run` and `pool` take as well.
    Weights are fp32, as those of everything around them are, in whatever precision a checkpoint holds them.
    """

    def __init__(self, vision_config: dict[str, Any], attention: str = "sdpa"):
        super().__init__()
        self.family: Family = FAMILIES[vision_config.get("model_type", "siglip_vision_model")]
        self.config = self.family.config.from_dict(vision_config)
        attention = resolve_attention(attention)
        self.model = self.family.model._from_config(self.config, attn_implementation=attention, dtype=torch.float32)

    @classmethod
    def from_pretrained(cls, path: str, attention: str = "sdpa", image_size: int | None = None) -> "VisionTower":
        """Loads a folder or hub id, a whole SigLIP or its vision part, or a DINOv2.

        Another `image_size` than its own interpolates the position embeddings, once and as `transformers` does.
        """
        native = vision_config_of(path)
        tower = cls(vision_config_of(path, image_size), attention)
        try:
            attention = tower.config._attn_implementation
            model = tower.family.model.from_pretrained(path, attn_implementation=attention, dtype=torch.float32)
        except OSError as error:
            raise FileNotFoundError(f"no tower weights at {path!r}: {str(error).splitlines()[0]}") from error
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the tower's weights at {path!r} are damaged or of another size: {reason}") from error
        if tower.image_size == native["image_size"]:
            tower.model = model
        else:
            name = tower.family.positions
            tower.model.load_state_dict({**model.state_dict(), name: tower._positions_from(model.embeddings, name)})
        return tower

    def new_below(self, num_layers: int) -> "VisionTower":
        """A tower of the same kind with the first `num_layers` layers alone, its weights new; it cannot `pool`."""
        config = {**self.config.to_dict(), "num_hidden_layers": num_layers, "vision_use_head": False}
        return VisionTower(config, self.config._attn_implementation)

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
        """float[B, 3, h, w] in [−1, 1] → float[B, P + N, H]; the family's own mean and deviation are applied here."""
        expected = (3, self.image_size, self.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(f"images must be {expected} for this tower, not {tuple(pixel_values.shape[1:])}")
        if self.family.mean != HALF:  # SigLIP's own range is [−1, 1]
            mean, std = (pixel_values.new_tensor(v)[:, None, None] for v in (self.family.mean, self.family.std))
            pixel_values = (pixel_values / 2 + 0.5 - mean) / std
        return self.model.embeddings(pixel_values)

    def run(self, hidden_states: Tensor, first: int, last: int) -> Tensor:
        """Applies layers `first` … `last` inclusive."""
        for layer in getattr(self.model.encoder, self.family.layers)[first - 1 : last]:
            output = layer(hidden_states, attention_mask=None)
            hidden_states = output if isinstance(output, Tensor) else output[0]
        return hidden_states

    def taps(self, pixel_values: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """The patches float[B, N, H] after each of `layers`; 0 is the patch embedding. Nothing deeper is run."""
        hidden, done = self.embed(pixel_values), 0
        taps = {}
        for layer in sorted(layers):
            hidden = self.run(hidden, done + 1, layer)
            taps[layer], done = self.patches(hidden), layer
        return taps

    def patches(self, hidden_states: Tensor) -> Tensor:
        """float[B, P + N, H] → float[B, N, H]."""
        return hidden_states[:, -self.grid[0] * self.grid[1] :]

    def pool(self, hidden_states: Tensor) -> Tensor:
        """float[B, P + N, H] after the last layer → the image feature float[B, H], from the patches alone."""
        return self.family.pool(self.model, self.patches(hidden_states))

    @torch.no_grad()
    def _positions_from(self, embeddings: nn.Module, name: str) -> Tensor:
        """The position table `name` of this tower's resolution from the `embeddings` of another one."""
        target = self.model.state_dict()[name]
        tokens = target.new_empty(1, target.shape[-2], target.shape[-1])  # `transformers` reads its shape alone
        table = embeddings.interpolate_pos_encoding(tokens, self.image_size, self.image_size)  # type: ignore[operator]
        return table.reshape(target.shape)


def check_taps(config: TokenizerConfig, num_layers: int) -> None:
    """The semantic tap needs at least the layers up to it."""
    if config.semantic_layer > num_layers:
        raise ValueError(f"semantic_layer {config.semantic_layer} lies beyond the tower's {num_layers} layers")
