"""The language model of the unified model: any decoder of transformers' Llama, Qwen2 or Qwen3 kind, unpatched."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from heads.cross_entropy import TextClassifier
from mllm.config import LLMConfig
from mllm.new_tokens import add_tokens
from tokenizer.attention import resolve_attention


def build_llm(
    config: LLMConfig,
    vocab_size: int,
    dtype: torch.dtype = torch.float32,
    new_ids: Sequence[int] = (),
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
) -> PreTrainedModel:
    """Loads `config.path`, or initialises a Qwen2 of the given sizes.

    Both ways go through transformers' own constructors, so that an `HfDeepSpeedConfig` that is alive partitions the
    weights as they are made (a bare constructor inside `zero.Init` gives wrong initial weights silently).

    `new_ids` are the tokens that pretrained weights know nothing of; `whole` as in `mllm.pretrained.load_model`.
    """
    attention = resolve_attention(config.attn_implementation)
    if config.path is None:
        llm = llm_from_config(qwen2_config(config, vocab_size), attention, dtype)
    else:
        try:
            llm = AutoModelForCausalLM.from_pretrained(config.path, dtype=dtype, attn_implementation=attention)
        except OSError as error:
            raise FileNotFoundError(
                f"no language model could be loaded from llm.path={config.path!r}: "
                "give a local folder of a Hugging Face model, or a hub id and a network connection."
            ) from error
        except (ValueError, SafetensorError) as error:
            reason = str(error).split(". ")[0].splitlines()[0]  # transformers goes on to name every model it has
            raise ValueError(f"llm.path={config.path!r} holds no language model that can be read: {reason}.") from error
        grow(llm, new_ids, whole)
    return prepare(llm, config, vocab_size)


def outline_llm(config: LLMConfig, vocab_size: int, new_ids: Sequence[int] = ()) -> PreTrainedModel:
    """What `build_llm` makes, without weights, for use inside `torch.device("meta")`."""
    llm_config = qwen2_config(config, vocab_size) if config.path is None else AutoConfig.from_pretrained(config.path)
    llm = llm_from_config(llm_config, "sdpa", torch.float32)
    if config.path is not None:
        grow(llm, new_ids)
    return prepare(llm, config, vocab_size)


def grow(
    llm: PreTrainedModel,
    new_ids: Sequence[int],
    whole: Callable[[nn.Parameter], AbstractContextManager] = nullcontext,
) -> None:
    """Gives pretrained weights rows for the tokens that their vocabulary was given (mllm/new_tokens.py)."""
    if new_ids and min(new_ids) <= llm.config.vocab_size:  # else the vocabulary is another model's: see `prepare`
        add_tokens(llm, new_ids, whole)


def llm_from_config(config: AutoConfig, attention: str, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)


def prepare(llm: PreTrainedModel, config: LLMConfig, vocab_size: int) -> PreTrainedModel:
    """Checks the size of the vocabulary and puts our loss into the output classifier, around the same parameter."""
    if llm.config.vocab_size < vocab_size:
        raise ValueError(
            f"the text vocabulary has {vocab_size} entries but the language model only {llm.config.vocab_size}: "
            "use the tokenizer that belongs to llm.path."
        )
    llm.set_output_embeddings(TextClassifier.sharing(llm.get_output_embeddings()))
    if config.gradient_checkpointing:
        set_checkpointing(llm, True)
    return llm


def set_checkpointing(llm: PreTrainedModel, enabled: bool) -> None:
    """Whether layers are recomputed for the backward pass; transformers renames the methods on the way to version 6."""
    prefix = "activation" if hasattr(llm, "activation_checkpointing_enable") else "gradient"
    getattr(llm, f"{prefix}_checkpointing_{'enable' if enabled else 'disable'}")()


def qwen2_config(config: LLMConfig, vocab_size: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_word_embeddings,
    )
