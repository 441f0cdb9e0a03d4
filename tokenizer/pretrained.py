"""Tokenizer folders: `config.json` (choices, tower, tokenizer_id) and `model.safetensors`.

The `tokenizer_id` is a hash of everything that decides which codes an image gets. Code stores and language models carry
it, so that codes of one tokenizer are never read with another.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file

from tokenizer.config import DecoderConfig, QuantizerConfig, TokenizerConfig
from tokenizer.hub import local_folder
from tokenizer.model import DualTokenizer
from tokenizer.tower import VisionTower

DECIDES_CODES = (
    "tower.", "pixel_tower.", "pixel_in.", "pixel_shortcut.", "pixel_quantizer.", "semantic_in.", "semantic_quantizer.",
)  # fmt: skip


def tokenizer_id(tokenizer: DualTokenizer) -> str:
    """16 hexadecimal digits over taps, crop, tower, the projections before the quantizers and the codebooks."""
    config = tokenizer.config
    choices: list[float | str] = [config.pixel_layer, config.semantic_layer]
    if config.pixel_shortcut_layer is not None:
        choices += [config.pixel_shortcut_layer, config.pixel_shortcut_weight]
    if config.crop != "center":  # the usual one is left out, so that identities from before it counted stay
        choices.append(config.crop)
    digest = hashlib.sha256(" ".join(map(str, choices)).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith(DECIDES_CODES) and not name.endswith(("cluster_size", "vector_sum")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def save_tokenizer(tokenizer: DualTokenizer, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """With a `dtype`, what decides no codes is stored in it: reconstructions change by its rounding, codes do not."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    names: dict[int, str] = {}
    for name, tensor in tokenizer.state_dict().items():
        if names.setdefault(tensor.data_ptr(), name) == name:  # a single codebook, which has two names, once
            stays = dtype is None or name.startswith(DECIDES_CODES)
            weights[name] = (tensor if stays else tensor.to(dtype)).contiguous()
    save_file(weights, folder / "model.safetensors")
    document = {
        "model_type": "dualtoken_tokenizer",
        "tokenizer_id": tokenizer.tokenizer_id,
        "tokenizer": dataclasses.asdict(tokenizer.config),
        "tower": tokenizer.tower.config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(document, indent=2, default=str) + "\n")


def load_tokenizer(name: str | Path, subfolder: str = "", **download: Any) -> DualTokenizer:
    """Reads a folder of `save_tokenizer`, or that of a unified model which holds one, frozen.

    Raises FileNotFoundError or ValueError with the reason.
    """
    folder = local_folder(name, [str(Path(subfolder) / "*")], **download) / subfolder
    if (folder / "tokenizer/config.json").is_file():
        folder = folder / "tokenizer"
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is not a tokenizer folder: {name} is missing; make one with `dualtoken train-tokenizer`"
            )
    try:
        document = json.loads((folder / "config.json").read_text())
        config = _config(document["tokenizer"])
        # Flash attention is of training under autocast: its kernels know no fp32, in which pictures become codes.
        attention = "sdpa" if config.attention.startswith("flash") else config.attention
        tokenizer = DualTokenizer(config, VisionTower(document["tower"], attention))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} is not the configuration of a DualToken tokenizer: {error!r}"
        ) from error
    try:
        load_model(tokenizer, folder / "model.safetensors")
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {folder} do not fit its config.json: {reason}") from error
    return tokenizer.freeze()


def _config(document: dict) -> TokenizerConfig:
    parts = {"pixel": QuantizerConfig, "semantic": QuantizerConfig, "decoder": DecoderConfig}
    return TokenizerConfig(**{k: parts[k](**v) if k in parts else v for k, v in document.items()})
