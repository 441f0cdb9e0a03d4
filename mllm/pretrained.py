"""The folder of a unified model: everything that reading and writing images and text needs.

    config.json          our configuration, the LLM's own, what was known of the tokenizer, model_type
    model.safetensors    all weights but the codebooks, which the tokenizer holds
    vocabulary/          Hugging Face tokenizer files
    tokenizer/           DualTokenizer.save_pretrained

Any later stage of training can start from it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, LossWeights, UnifiedConfig, VisualSpec
from mllm.llm import llm_from_config, prepare, resolve_attention
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
    folder: str | Path, codebooks: Codebooks | None = None, dtype: torch.dtype = torch.float32
) -> UnifiedModel:
    folder = Path(folder)
    document = _read_config(folder)
    config, visual = _configs(document, folder)
    if codebooks is None:
        codebooks = DualTokenizer.from_pretrained(str(folder / "tokenizer")).codebooks()
    llm_config = AutoConfig.for_model(**document["llm"])
    llm = llm_from_config(llm_config, resolve_attention(config.llm.attn_implementation), dtype)
    llm = prepare(llm, config.llm, document["vocab_size"])
    model = UnifiedModel(config, visual, document["vocab_size"], codebooks, dtype=dtype, llm=llm)
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no exported model: {path.name} is missing; export it again.")
    try:
        missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights that its config.json describes: {reason}") from error
    missing = [name for name in missing if not (name == TIED and llm_config.tie_word_embeddings)]
    if missing or unexpected:
        raise ValueError(f"{path} lacks weights {missing[:3]} or holds unknown ones {unexpected[:3]}: export it again.")
    return model.eval()


def load_unified(folder: str | Path, dtype: torch.dtype = torch.float32) -> Unified:
    """Model, vocabulary and tokenizer of one folder, all in evaluation mode on the CPU."""
    folder = Path(folder)
    document = _read_config(folder)
    tokenizer = DualTokenizer.from_pretrained(str(folder / "tokenizer"))
    expected = document["visual"]["tokenizer_id"]
    if tokenizer.tokenizer_id != expected:
        raise ValueError(
            f"{folder / 'tokenizer'} has id {tokenizer.tokenizer_id}, but the model reads the codes of {expected}: "
            "put back the tokenizer that the model was exported with."
        )
    model = load_model(folder, tokenizer.codebooks(), dtype)
    return Unified(model, Vocabulary.from_pretrained(folder / "vocabulary"), tokenizer)


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
        config = {key: parts[key](**value) if key in parts else value for key, value in document["config"].items()}
        visual = document["visual"] | {"grid": tuple(document["visual"]["grid"])}
        return UnifiedConfig(**config), VisualSpec(**visual)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'} is of another version ({error}): export it again.") from error
