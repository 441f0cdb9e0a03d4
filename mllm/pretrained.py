"""The folder of a unified model: everything that reading and writing images and text needs.

    config.json          our configuration, the LLM's own, what was known of the tokenizer, model_type
    model.safetensors    all weights but the codebooks, which the tokenizer holds
    vocabulary/          Hugging Face tokenizer files
    tokenizer/           DualTokenizer.save_pretrained
    adapter/             LoRA of the LLM, where it was not merged into the weights; loading adds it to them

Any later stage of training can start from it.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, LossWeights, UnifiedConfig, VisualSpec
from mllm.llm import llm_from_config, prepare, resolve_attention
from mllm.lora import ADAPTER, merge_adapter
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DualTokenizer

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
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    if model.llm.config.tie_word_embeddings:
        weights.pop(TIED, None)  # safetensors holds no tensor twice
    document = {
        "model_type": MODEL_TYPE,
        "config": asdict(model.config),
        "visual": asdict(model.visual),
        "vocab_size": model.vocab_size,
        "llm": model.llm.config.to_diff_dict(),
    }
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors")
    vocabulary.save_pretrained(folder / "vocabulary")
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def load_model(
    folder: str | Path,
    codebooks: Codebooks | None = None,
    dtype: torch.dtype = torch.float32,
    making: AbstractContextManager = nullcontext(),
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
) -> UnifiedModel:
    """An engine that holds weights in parts gives `making`, entered while the LLM is made, and `whole`, entered while a
    parameter is filled: no process then holds the model in full.
    """
    folder = Path(folder)
    document = _read_config(folder)
    config, visual = _configs(document, folder)
    if codebooks is None:
        codebooks = DualTokenizer.from_pretrained(str(folder / "tokenizer")).codebooks()
    llm_config = AutoConfig.for_model(**document["llm"])
    with making:
        llm = llm_from_config(llm_config, resolve_attention(config.llm.attn_implementation), dtype)
    llm = prepare(llm, config.llm, document["vocab_size"])
    model = UnifiedModel(config, visual, document["vocab_size"], codebooks, dtype=dtype, llm=llm)
    _fill(model, folder / "model.safetensors", whole)
    if (folder / ADAPTER).is_dir():
        merge_adapter(model.llm, folder / ADAPTER, whole)
    return model.eval()


@torch.no_grad()
def _fill(model: UnifiedModel, path: Path, whole: Callable[[nn.Parameter], AbstractContextManager]) -> None:
    """Copies the weights of a file into the parameters, one at a time."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no exported model: {path.name} is missing; export it again.")
    parameters = dict(model.named_parameters())  # a tied classifier counts once, as in the file
    try:
        with safe_open(path, framework="pt") as file:
            missing, unexpected = sorted(parameters.keys() - file.keys()), sorted(file.keys() - parameters.keys())
            if missing or unexpected:
                raise ValueError(
                    f"{path} lacks weights {missing[:3]} or holds unknown ones {unexpected[:3]}: export it again."
                )
            for name, parameter in parameters.items():
                with whole(parameter):
                    weight = file.get_tensor(name)
                    if weight.shape != parameter.shape:
                        raise ValueError(
                            f"{path} does not hold the weights that its config.json describes: {name} is "
                            f"{tuple(weight.shape)}, not {tuple(parameter.shape)}."
                        )
                    parameter.copy_(weight)
    except SafetensorError as error:
        raise ValueError(f"{path} does not hold the weights that its config.json describes: {error}") from error


def load_unified(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    making: AbstractContextManager = nullcontext(),
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
) -> Unified:
    """Model, vocabulary and tokenizer of one folder, all in evaluation mode on the CPU; see `load_model`."""
    folder = Path(folder)
    document = _read_config(folder)
    tokenizer = DualTokenizer.from_pretrained(str(folder / "tokenizer"))
    expected = document["visual"]["tokenizer_id"]
    if tokenizer.tokenizer_id != expected:
        raise ValueError(
            f"{folder / 'tokenizer'} has id {tokenizer.tokenizer_id}, but the model reads the codes of {expected}: "
            "put back the tokenizer that the model was exported with."
        )
    model = load_model(folder, tokenizer.codebooks(), dtype, making, whole)
    return Unified(model, Vocabulary.from_pretrained(folder / "vocabulary"), tokenizer)


def read_sizes(folder: str | Path) -> tuple[UnifiedConfig, VisualSpec, PretrainedConfig, int]:
    """Of an exported model: our configuration, what it knows of the tokenizer, the LLM's own, the text vocabulary."""
    document = _read_config(Path(folder))
    return *_configs(document, Path(folder)), AutoConfig.for_model(**document["llm"]), document["vocab_size"]


def _read_config(folder: Path) -> dict:
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
