"""The kinds of vision transformers that a tower can be, and how their configurations are found.

SigLIP and SigLIP2 of fixed size share one class. SigLIP2 NaFlex, whose images keep their shape, has no grid and is
refused. DINOv2 and its variant with registers carry tokens besides the patches; see `VisionTower`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)


class Family(NamedTuple):
    """What differs from one kind of `transformers` vision model to another."""

    config: Any
    model: Any
    layers: str  # name of the encoder's list of layers
    positions: str  # name of the position table in the state dict, float[…, tokens, H]
    mean: tuple[float, float, float]  # of the pictures it was pretrained on, with values in [0, 1]
    std: tuple[float, float, float]
    pool: Callable[[nn.Module, Tensor], Tensor]  # model, float[B, N, H] → float[B, H]


def pool_by_attention(model: nn.Module, hidden_states: Tensor) -> Tensor:
    """SigLIP's image feature: final norm and attention pooling."""
    return model.head(model.post_layernorm(hidden_states))  # type: ignore[operator]


def pool_by_mean(model: nn.Module, hidden_states: Tensor) -> Tensor:
    """Mean of DINOv2's patches after the final norm.

    `transformers` calls the class token the pooled output; it is no function of the patches' codes, and this is.
    """
    return model.layernorm(hidden_states).mean(1)  # type: ignore[operator]


HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SIGLIP = ("layers", "embeddings.position_embedding.weight", HALF, HALF, pool_by_attention)
_DINOV2 = ("layer", "embeddings.position_embeddings", *IMAGENET, pool_by_mean)

FAMILIES = {
    "siglip_vision_model": Family(SiglipVisionConfig, SiglipVisionModel, *_SIGLIP),
    "dinov2": Family(Dinov2Config, Dinov2Model, *_DINOV2),
    "dinov2_with_registers": Family(Dinov2WithRegistersConfig, Dinov2WithRegistersModel, *_DINOV2),
}

# The towers that configs/full names, so that their sizes are known without a network.
_SO400M = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "google/siglip-so400m-patch14-384": {**_SO400M, "image_size": 384, "patch_size": 14},
    "google/siglip2-so400m-patch14-384": {**_SO400M, "image_size": 384, "patch_size": 14},
    "google/siglip2-so400m-patch16-256": {**_SO400M, "image_size": 256, "patch_size": 16},
}


def vision_config_of(path: str, image_size: int | None = None) -> dict[str, Any]:
    """The vision configuration of a folder or hub id, at another resolution if one is given.

    Raises FileNotFoundError or ValueError.
    """
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"tower folder {path} has no config.json; train one with `dualtoken train-tower`")
    if path in KNOWN_TOWERS and not Path(path).exists():
        config = SiglipVisionConfig(**KNOWN_TOWERS[path])
    else:
        config = _read_config(path)
    if config.model_type.startswith("siglip2"):
        raise ValueError(
            f"tower {path!r} is a SigLIP2 NaFlex model, whose number of patches depends on the picture; "
            "take one of fixed size, such as google/siglip2-so400m-patch14-384"
        )
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"tower {path!r} is a {config.model_type} model; a SigLIP, SigLIP2 or DINOv2 vision tower is needed"
        )
    if image_size is not None and image_size < config.patch_size:
        raise ValueError(f"image_size {image_size} is less than one patch of tower {path!r}, {config.patch_size} px")
    return {**config.to_dict(), **({} if image_size is None else {"image_size": image_size})}


def _read_config(path: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, json.JSONDecodeError) as error:
        raise FileNotFoundError(
            f"tower {path!r} is neither a folder here nor a reachable hub id; train one with `dualtoken train-tower`"
        ) from error
    return getattr(config, "vision_config", config)
