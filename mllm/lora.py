"""Low-rank adapters in the language model (LoRA, arXiv 2106.09685), by peft: W x + (alpha / rank) B A x.

W stays as it is, A and B learn; B starts at zero. An exported model holds W + (alpha / rank) B A and is like any other,
or W as it was and beside it the adapter in peft's own format, which loading adds to W.

    adapter/adapter_config.json        rank, alpha, target modules
    adapter/adapter_model.safetensors  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, …
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

ADAPTER = "adapter"  # the folder
PREFIX = "base_model.model."  # of names in peft's files
LLM = "llm."  # of the language model's names in the unified model


@dataclass(frozen=True)
class LoraConfig:
    """Read where `trainable` names lora; the defaults are LLaVA-1.5's."""

    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.05
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    merge: bool = True  # into the exported weights; false: they stay as they were, with the adapter beside them

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"lora.rank={self.rank} must be at least 1, and lora.alpha={self.alpha} above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout} must be at least 0 and below 1")
        if not self.target_modules:
            raise ValueError("lora.target_modules is empty: name the matrices to adapt, such as q_proj and v_proj")


def add_adapters(llm: PreTrainedModel, config: LoraConfig, seed: int) -> None:
    """Puts adapters into the layers of `llm`, in place: the same random ones on every rank.

    Before an engine takes the model, for it must know all parameters; matrices in ZeRO-3 partitions may be adapted too.
    """
    from peft import inject_adapter_in_model  # some seconds, which only adapted models pay

    linear = [name for name, module in llm.get_decoder().named_modules() if isinstance(module, nn.Linear)]
    names = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    if unknown := [name for name in config.target_modules if name not in names]:
        raise ValueError(f"lora.target_modules names {', '.join(unknown)}: the LLM's layers have {', '.join(names)}")
    torch.manual_seed(seed)
    inject_adapter_in_model(_peft_config(config), llm)


def take_off_adapters(weights: Mapping[str, Tensor], config: LoraConfig, folder: Path) -> Mapping[str, Tensor]:
    """An adapted model's weights -> those of the model without adapters, which are merged in or saved in `folder`."""
    own = Renamed(weights, {name.replace(".base_layer.", "."): name for name in weights if ".lora_" not in name})
    adapter = {
        name.replace(LLM, PREFIX, 1).replace(".default.", "."): weights[name].contiguous()
        for name in weights
        if ".lora_" in name
    }
    if config.merge:
        return Merged(own, adapter, config.alpha / config.rank)
    _peft_config(config).save_pretrained(str(folder))
    save_file(adapter, folder / "adapter_model.safetensors")
    return own


def with_adapter(weights: Mapping[str, Tensor], folder: Path) -> Mapping[str, Tensor]:
    """`weights` of the exported model in `folder`, with the adapter added that may lie apart there."""
    if not (folder / ADAPTER).is_dir():
        return weights
    try:
        config = json.loads((folder / ADAPTER / "adapter_config.json").read_text())
        adapter = load_file(folder / ADAPTER / "adapter_model.safetensors")
        return Merged(weights, adapter, config["lora_alpha"] / config["r"])
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        reason = f"{folder / ADAPTER} holds no adapter of this model ({error}): export the model again."
        raise ValueError(reason) from error


class Renamed(Mapping[str, Tensor]):
    """Other names for `weights`, each read when it is asked for: new name -> name."""

    def __init__(self, weights: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._weights, self._names = weights, names

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Merged(Renamed):
    """`weights` with an adapter in peft's names: W + scale B A, made when it is asked for, so none is held twice.

    Raises ValueError for an adapter of another model.
    """

    def __init__(self, weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float) -> None:
        super().__init__(weights, {name: name for name in weights})
        pairs = ((name, name.replace(".lora_A.", ".lora_B.")) for name in adapter if ".lora_A." in name)
        self._adapter, self._scale = adapter, scale
        self._pairs = {pair[0].replace(PREFIX, LLM, 1).replace(".lora_A.", "."): pair for pair in pairs}
        for name, (down, up) in self._pairs.items():
            if name not in self._names or up not in adapter or adapter[up].shape[1:] != adapter[down].shape[:1]:
                raise ValueError(f"{down} changes no weight of it")

    def __getitem__(self, name: str) -> Tensor:
        weight = super().__getitem__(name)
        if name not in self._pairs:
            return weight
        down, up = (self._adapter[part].double() for part in self._pairs[name])  # float64: no faster product rounds it
        change = self._scale * (up @ down)
        if change.shape != weight.shape:
            raise ValueError(f"the adapter of {name} is for {tuple(change.shape)}, not {tuple(weight.shape)}")
        return (weight + change).to(weight.dtype)


def _peft_config(config: LoraConfig) -> Any:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
