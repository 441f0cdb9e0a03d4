"""Import of the tokenizer checkpoints that the authors released (songweii/DualToken).

A checkpoint is a dict whose `state_dict` holds `siglip_model`, the attention projections, both quantizers and a decoder
in taming-transformers' names. `source` says where each tensor of ours is among them.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tokenizer.config import TokenizerConfig
from tokenizer.model import DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of

# The text half of SigLIP, which a tokenizer has not, and the keys' bias, which is zero and would have no effect.
LEFT_OUT = re.compile(r"siglip_model\.(text_model\.|logit_)|.*\.attn\.zero_k_bias$")
LISTED = 12  # keys named in a message; a wrong config would name hundreds

_BRANCHES = {
    "pixel_in": "prequant_pix",
    "pixel_shortcut": "prequant_shortcut",
    "pixel_out": "postquant_pix",
    "semantic_in": "prequant_sem",
    "semantic_out": "postquant_sem",
    "pixel_quantizer": "quantizer_pix",
    "semantic_quantizer": "quantizer_sem",
}
_PROJECTION = {
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "residual_norm": "norm3",
    "residual": "proj",
    "attention.query.bias": "attn.q_bias",
    "attention.value.bias": "attn.v_bias",
    "attention.output": "attn.proj",
    "mlp.norm": "mlp.norm",
    "mlp.gate": "mlp.w0",
    "mlp.up": "mlp.w1",
    "mlp.down": "mlp.w2",
}
_CODEBOOK = {"embedding": "weight", "cluster_size": "cluster_size_ema", "vector_sum": "embed_ema"}
_DECODER = {
    "stem.0": "post_quant_conv",
    "stem.1": "decoder.conv_in",
    "stem.2": "decoder.mid.block_1",
    "stem.3": "decoder.mid.attn_1",
    "stem.4": "decoder.mid.block_2",
    "head.0": "decoder.norm_out",
    "head.2": "decoder.conv_out",
}


class Source(NamedTuple):
    keys: list[str]  # in the checkpoint
    read: Callable[..., Tensor]  # their tensors → ours


def import_released(path: str | Path, config: TokenizerConfig) -> DualTokenizer:
    """A released checkpoint as a frozen tokenizer of `config`, whose tower gives sizes alone.

    Raises FileNotFoundError, or ValueError that lists missing and unknown keys or wrong shapes.
    """
    state = read_state_dict(path)
    tokenizer = DualTokenizer(config, VisionTower(vision_config_of(config.tower, config.image_size), config.attention))
    expected = tokenizer.state_dict()
    sources = {name: source(name, config) for name in expected}
    used = {key for origin in sources.values() for key in origin.keys}
    missing, unknown = used - state.keys(), {key for key in state.keys() - used if not LEFT_OUT.match(key)}
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit the config: it lacks {_listed(sorted(missing))}; "
            f"it has besides {_listed(sorted(unknown))}"
        )
    tensors = {name: origin.read(*(state[key] for key in origin.keys)).float() for name, origin in sources.items()}
    wrong = [
        f"{sources[name].keys[0]} gives {list(tensor.shape)} instead of {list(expected[name].shape)}"
        for name, tensor in tensors.items()
        if tensor.shape != expected[name].shape
    ]
    if wrong:
        raise ValueError(f"{path} does not have the sizes of the config: {_listed(wrong)}")
    tokenizer.load_state_dict(tensors)
    return tokenizer.freeze()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, read without running code from it and without `module.` before their names."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no checkpoint of tensors: {reason}") from error
    state = document.get("state_dict") if isinstance(document, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no released checkpoint: it has no state_dict")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def source(name: str, config: TokenizerConfig) -> Source:
    """Where our tensor `name` is in a released checkpoint."""
    part, _, rest = name.partition(".")
    if part == "tower":
        return Source([f"siglip_model.vision_model.{rest.removeprefix('model.')}"], _same)
    if part == "decoder":
        return _decoder_source(rest, config)
    branch = _BRANCHES[part]
    if part.endswith("quantizer"):
        return _codebook_source(branch, rest, config)
    for i, linear in enumerate(("query", "key", "value")):
        if rest == f"attention.{linear}.weight":
            return Source([f"{branch}.attn.qkv.weight"], lambda weight, i=i: weight.chunk(3)[i])
    return Source([f"{branch}.{_renamed(rest, _PROJECTION)}"], _same)


def _codebook_source(branch: str, rest: str, config: TokenizerConfig) -> Source:
    """A codebook that is shared over depth stands in a checkpoint once for each depth."""
    _, book, tensor = rest.split(".")
    quantizer = config.pixel if branch == "quantizer_pix" else config.semantic
    books = range(quantizer.depth) if quantizer.shared else [int(book)]

    def read(*copies: Tensor) -> Tensor:
        if not all(torch.equal(copies[0], copy) for copy in copies[1:]):
            raise ValueError(f"the codebooks of {branch} differ by depth; set shared: false for it")
        return copies[0][:-1] if tensor == "embedding" else copies[0]  # the last row is padding, never chosen

    return Source([f"{branch}.codebooks.{d}.{_CODEBOOK[tensor]}" for d in books], read)


def _decoder_source(rest: str, config: TokenizerConfig) -> Source:
    """Blocks of the decoder; the released one has q, k and v apart, ours has them in one convolution."""
    key = _renamed(rest, {**_DECODER, **_level_names(config)})
    key = key.replace(".shortcut.", ".nin_shortcut.").replace(".out.", ".proj_out.")
    if ".qkv." not in key:
        return Source([key], _same)
    return Source([key.replace(".qkv.", f".{letter}.") for letter in "qkv"], lambda *qkv: torch.cat(qkv))


def _level_names(config: TokenizerConfig) -> dict[str, str]:
    """Names of the decoder's levels, from the lowest resolution up, in the order in which `Decoder` builds them."""
    names, last = [], len(config.decoder.channel_multipliers) - 1
    for level in range(last, -1, -1):
        for block in range(config.decoder.num_res_blocks + 1):
            names.append(f"decoder.up.{level}.block.{block}")
            if level == last:
                names.append(f"decoder.up.{level}.attn.{block}")
        if level:
            names.append(f"decoder.up.{level}.upsample")
    return {f"levels.{i}": name for i, name in enumerate(names)}


def _renamed(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more if items else "nothing"
