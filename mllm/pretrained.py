"""The folder of a unified model: everything that reading and writing images and text needs.

    config.json             our configuration, the LLM's own, what was known of the tokenizer, model_type
    model.safetensors       all weights but the codebooks, which the tokenizer holds; or shards (mllm/weights.py)
    vocabulary/             Hugging Face tokenizer files
    tokenizer/              DualTokenizer.save_pretrained
    processor_config.json   how pictures become pixel values (mllm/processor.py)
    adapter/                LoRA of the LLM, where it was not merged into the weights; loading adds it to them

Any later stage of training can start from it, and transformers' Auto classes read it (mllm/auto.py).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, LossWeights, UnifiedConfig, VisualSpec
from mllm.llm import llm_from_config, prepare
from mllm.lora import ADAPTER, with_adapter
from mllm.model import UnifiedModel
from mllm.processor import DualTokenProcessor
from mllm.weights import MAX_SHARD_SIZE, WeightFiles, write_weights
from tokenizer import Codebooks, DualTokenizer
from tokenizer.attention import resolve_attention
from tokenizer.hub import local_folder

MODEL_TYPE = "dualtoken"
TIED = "llm.lm_head.weight"


class Unified(NamedTuple):
    model: UnifiedModel
    vocabulary: Vocabulary
    tokenizer: DualTokenizer


def save_unified(
    model: UnifiedModel,
    folder: str | Path,
    vocabulary: Vocabulary,
    tokenizer: DualTokenizer,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
) -> None:
    """`weights` replaces the module's own, which may then be in an engine's parts or on the meta device.

    What an older save left in `folder` is replaced; its adapter stays where `weights` are given, which may need one.

    With a `dtype`, weights are stored in it, and with them those of the tokenizer that decide no codes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = model.state_dict() if weights is None else weights
    left_out = {TIED} if model.llm.config.tie_word_embeddings else set()  # safetensors holds no tensor twice
    kept = ((name, weight) for name, weight in named.items() if name not in left_out)
    read_as = write_weights(kept, folder, dtype, max_shard_size)
    if weights is None:
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    vocabulary.save_pretrained(folder / "vocabulary")
    tokenizer.save_pretrained(folder / "tokenizer", torch.bfloat16 if dtype == torch.int8 else dtype)
    DualTokenProcessor.of(vocabulary, tokenizer).save_settings(folder)
    document = {
        "model_type": MODEL_TYPE,
        "dtype": str(read_as).removeprefix("torch."),
        "config": asdict(model.config),
        "visual": asdict(model.visual),
        "vocab_size": model.vocab_size,
        "llm": model.llm.config.to_diff_dict(),
    }
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def load_model(
    name: str | Path,
    codebooks: Codebooks | None = None,
    dtype: torch.dtype = torch.float32,
    making: AbstractContextManager = nullcontext(),
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
    device: torch.device | str = "cpu",
    **download: Any,
) -> UnifiedModel:
    """The model in a folder or a repository of the hub (tokenizer/hub.py), in evaluation mode.

    It is made on `device` and filled from the disk a parameter at a time; on "meta" it stays without weights. An engine
    that holds weights in parts gives `making`, entered while the LLM is made, and `whole`, entered while a parameter is
    filled: no process then holds the model in full.
    """
    folder = local_folder(name, **download)
    document = read_config(folder)
    config, visual = _configs(document, folder)
    if codebooks is None:
        codebooks = DualTokenizer.from_pretrained(folder / "tokenizer").codebooks()
    if codebooks.tokenizer_id not in (visual.tokenizer_id, None):
        raise ValueError(
            f"{folder} reads the codes of tokenizer {visual.tokenizer_id}, but that of {folder / 'tokenizer'}, or the "
            f"one given, is {codebooks.tokenizer_id}: put back the tokenizer that the model was exported with."
        )
    llm_config = AutoConfig.for_model(**document["llm"])
    with torch.device(device):
        with making:
            llm = llm_from_config(llm_config, resolve_attention(config.llm.attn_implementation, required=False), dtype)
        llm = prepare(llm, config.llm, document["vocab_size"])
        model = UnifiedModel(config, visual, document["vocab_size"], codebooks, dtype=dtype, llm=llm)
    if torch.device(device).type != "meta":
        _fill(model, WeightFiles(folder), whole)
    return model.to(device).eval()


@torch.no_grad()
def _fill(model: UnifiedModel, weights: WeightFiles, whole: Callable[[nn.Parameter], AbstractContextManager]) -> None:
    parameters = dict(model.named_parameters())  # a tied classifier counts once, as on the disk
    missing, unexpected = sorted(parameters.keys() - weights.keys()), sorted(weights.keys() - parameters.keys())
    if missing or unexpected:
        raise ValueError(
            f"{weights.folder} lacks weights {missing[:3]} or holds unknown ones {unexpected[:3]}: export it again."
        )
    merged = with_adapter(weights, weights.folder)
    for name, parameter in parameters.items():
        with whole(parameter):
            if weights.shape(name) != parameter.shape:
                raise ValueError(
                    f"{weights.folder} does not hold the weights that its config.json describes: {name} is "
                    f"{tuple(weights.shape(name))}, not {tuple(parameter.shape)}."
                )
            parameter.copy_(merged[name])


def load_unified(
    name: str | Path,
    dtype: torch.dtype = torch.float32,
    making: AbstractContextManager = nullcontext(),
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
    device: torch.device | str = "cpu",
    **download: Any,
) -> Unified:
    """Model, vocabulary and tokenizer of one folder or repository, all in evaluation mode; see `load_model`."""
    folder = local_folder(name, **download)
    read_config(folder)  # before the tokenizer, whose absence would be told first
    tokenizer = DualTokenizer.from_pretrained(folder / "tokenizer")
    model = load_model(folder, tokenizer.codebooks(), dtype, making, whole, device)
    vocabulary = Vocabulary.from_pretrained(folder / "vocabulary")
    return Unified(model, vocabulary, tokenizer.to("cpu" if torch.device(device).type == "meta" else device))


def read_sizes(folder: str | Path) -> tuple[UnifiedConfig, VisualSpec, PretrainedConfig, int]:
    """Of an exported model: our configuration, what it knows of the tokenizer, the LLM's own, the text vocabulary."""
    document = read_config(Path(folder))
    return *_configs(document, Path(folder)), AutoConfig.for_model(**document["llm"]), document["vocab_size"]


def read_config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no exported model: {path.name} is missing. `dualtoken train` writes one to runs/NAME/export."
        )
    try:
        document = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): export the model again.") from error
    if not isinstance(document, dict) or document.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{path} does not describe a unified model: give the folder that `dualtoken train` exported.")
    return document


def _configs(document: dict, folder: Path) -> tuple[UnifiedConfig, VisualSpec]:
    parts = {"llm": LLMConfig, "heads": DepthHeadConfig, "loss_weights": LossWeights}
    try:
        stored = document["config"].items()
        config = {key: parts[key](**value) if key in parts and value is not None else value for key, value in stored}
        visual = document["visual"] | {"grid": tuple(document["visual"]["grid"])}
        return UnifiedConfig(**config), VisualSpec(**visual)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'} is of another version ({error}): export it again.") from error
