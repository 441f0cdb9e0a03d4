"""The model that a training config describes, on the meta device: no memory for weights, no network where it can be.

What an earlier stage makes, and is not there yet, is replaced by the paper's sizes; every replacement is named.
"""

from copy import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig, PretrainedConfig, Qwen2Config

from data.vocabulary import Vocabulary
from mllm.config import LLMConfig, VisualSpec
from mllm.llm import grow, llm_from_config, prepare, qwen2_config
from mllm.lora import add_adapters
from mllm.model import UnifiedModel
from mllm.pretrained import read_sizes
from tokenizer import Codebooks, DualTokenizer
from tokenizer.attention import resolve_attention
from tokenizer.projection import LinearProjection
from train.parameters import group_parameters
from train.train_mllm import TrainMllmConfig

PAPER_TOKENIZER = VisualSpec(grid=(27, 27), depth=8, codebook_size=16384, code_dim=32, tokenizer_id="")
PAPER_TOWER_WIDTH = 1152
PAPER_VOCABULARY = 151936


def _sizes(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = dict(zip(names, (hidden, intermediate, layers, heads, kv_heads), strict=True))
    return {**sizes, "vocab_size": vocabulary, "tie_word_embeddings": tied}


# What config.json says on the hub.
KNOWN: dict[str, PretrainedConfig] = {
    "Qwen/Qwen2.5-0.5B": Qwen2Config(**_sizes(896, 4864, 24, 14, 2, 151936, True)),
    "Qwen/Qwen2.5-1.5B": Qwen2Config(**_sizes(1536, 8960, 28, 12, 2, 151936, True)),
    "Qwen/Qwen2.5-3B": Qwen2Config(**_sizes(2048, 11008, 36, 16, 2, 151936, True)),
    "Qwen/Qwen2.5-7B": Qwen2Config(**_sizes(3584, 18944, 28, 28, 4, 152064, False)),
    "Qwen/Qwen2.5-14B": Qwen2Config(**_sizes(5120, 13824, 48, 40, 8, 152064, False)),
    "meta-llama/Llama-2-7b-hf": LlamaConfig(**_sizes(4096, 11008, 32, 32, 32, 32000, False)),
}


def planned_model(config: TrainMllmConfig) -> tuple[UnifiedModel, list[str]]:
    """The model, its parts frozen as the stage does, and what was assumed. Raises FileNotFoundError, or ValueError."""
    if config.init is not None and Path(config.init).is_dir():
        (sizes, visual, llm_sizes, vocabulary_size), assumed = read_sizes(config.init), []
        codebooks = tokenizer_of(str(Path(config.init) / "tokenizer"))[1]
    elif config.init is not None:
        sizes, (visual, codebooks, _), vocabulary_size = config.model, tokenizer_of(None), PAPER_VOCABULARY
        llm_sizes = sizes_of(sizes.llm, vocabulary_size)
        assumed = [f"init={config.init}: the sizes under `model`, by default Qwen-2.5-3B's, and the paper's tokenizer"]
    else:
        sizes, (visual, codebooks, assumed) = config.model, tokenizer_of(config.tokenizer)
        llm_sizes = sizes_of(sizes.llm, PAPER_VOCABULARY if config.vocabulary else config.vocabulary_size)
        vocabulary_size = llm_sizes.vocab_size
    with torch.device("meta"):
        attention = resolve_attention(sizes.llm.attn_implementation, required=False)
        llm = llm_from_config(llm_sizes, attention, torch.float32)
        if config.init is None and sizes.llm.path and config.vocabulary and Path(config.vocabulary).is_dir():
            grow(llm, Vocabulary.from_pretrained(config.vocabulary).new_ids)
        llm = prepare(llm, sizes.llm, vocabulary_size)
        model = UnifiedModel(sizes, visual, vocabulary_size, codebooks, llm=llm)
        if config.has_adapters:
            add_adapters(llm, config.lora, config.loop.seed)
    group_parameters(model, config.trainable, config.optimizer)
    return model, assumed


def tokenizer_of(folder: str | None) -> tuple[VisualSpec, Codebooks, list[str]]:
    if folder is not None and Path(folder).is_dir():
        tokenizer = DualTokenizer.from_pretrained(folder)
        codebooks = tokenizer.codebooks()
        return VisualSpec.of(tokenizer, codebooks.tokenizer_id), codebooks, []
    with torch.device("meta"):
        book = torch.empty(1, PAPER_TOKENIZER.codebook_size, PAPER_TOKENIZER.code_dim)
        project = LinearProjection(PAPER_TOKENIZER.code_dim, PAPER_TOWER_WIDTH)
    assumed = [f"the tokenizer {folder}: the paper's, 27 × 27 positions, depth 8, 16,384 entries"]
    return PAPER_TOKENIZER, Codebooks(book, book, project, project), assumed


def sizes_of(config: LLMConfig, vocabulary_size: int) -> PretrainedConfig:
    """Of the language model: of its folder, by its name, or from the hub."""
    if config.path is None:
        return qwen2_config(config, vocabulary_size)
    known = KNOWN.get(config.path.removesuffix("-Instruct"))
    if known is not None and not Path(config.path).is_dir():
        return copy(known)
    try:
        return AutoConfig.from_pretrained(config.path)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"the sizes of llm.path={config.path!r} are not known: it is no folder here, the hub does not answer, and "
            f"without it those of {', '.join(KNOWN)} are known alone"
        ) from error
