"""Low-rank adapters in the language model (LoRA, arXiv 2106.09685), by peft: W x + (alpha / rank) B A x.

W stays as it is, A and B learn; B starts at zero. An exported model holds W + (alpha / rank) B A and is like any other,
or W as it was and beside it the adapter in peft's own format, which loading adds to W.

    adapter/adapter_config.json        rank, alpha, target modules
    adapter/adapter_model.safetensors  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, …
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
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


def take_off_adapters(weights: Mapping[str, Tensor], config: LoraConfig, folder: Path) -> dict[str, Tensor]:
    """An adapted model's weights -> those of the model without adapters, which are merged in or saved in `folder`."""
    own = {name.replace(".base_layer.", "."): weight for name, weight in weights.items() if ".lora_" not in name}
    adapter = {
        name.replace(LLM, PREFIX, 1).replace(".default.", "."): weight.contiguous()
        for name, weight in weights.items()
        if ".lora_" in name
    }
    if config.merge:
        for name, change in _changes(adapter, config.alpha / config.rank):
            own[LLM + name] = (own[LLM + name] + change).to(own[LLM + name].dtype)
    else:
        _peft_config(config).save_pretrained(str(folder))
        save_file(adapter, folder / "adapter_model.safetensors")
    return own


def refuse_adapter(folder: Path) -> None:
    """Raises ValueError where the weights in `folder` are not all of the model: its adapter lies beside them."""
    if (folder / ADAPTER).is_dir():
        raise ValueError(
            f"{folder} keeps its adapter apart (lora.merge=false), and its weights alone are those before training: "
            "export a checkpoint of its run, in which the adapter is merged, or load the folder as it is"
        )


@torch.no_grad()
def merge_adapter(llm: PreTrainedModel, folder: Path, whole: Callable[[nn.Parameter], AbstractContextManager]) -> None:
    """Adds the adapter in `folder` to the matrices of `llm`; inside `whole(parameter)` a parameter may be written."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        adapter = load_file(folder / "adapter_model.safetensors")
        for name, change in _changes(adapter, config["lora_alpha"] / config["r"]):
            parameter = llm.get_parameter(name)
            with whole(parameter):
                parameter.copy_(parameter + change)
    except (OSError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no adapter of this model ({error}): export the model again.") from error


def _changes(adapter: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    """Names of the LLM's matrices and what is added to each. float64, which no faster kind of product rounds."""
    for name, down in adapter.items():
        if ".lora_A." in name:
            up = adapter[name.replace(".lora_A.", ".lora_B.")]
            yield name.removeprefix(PREFIX).replace(".lora_A.", "."), scale * (up.double() @ down.double())


def _peft_config(config: LoraConfig) -> Any:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
