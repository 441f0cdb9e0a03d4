"""What a stage of the unified model starts from: an exported folder of an earlier stage, or nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.sources import SourceConfig, open_sources
from data.vocabulary import CONTROL_TOKENS, PLAIN_TOKENS, Vocabulary
from heads.sampling import BRANCHES
from mllm.config import UnifiedConfig, VisualSpec
from mllm.llm import build_llm, outline_llm, set_checkpointing
from mllm.lora import with_adapter
from mllm.model import UnifiedModel
from mllm.pretrained import Unified, load_unified
from mllm.weights import WeightFiles
from tokenizer import DualTokenizer
from tokenizer.attention import resolve_attention
from tokenizer.hub import local_folder
from train.distributed import World
from train.engine import partitioned_loading, whole
from train.engine_config import EngineConfig
from train.replaced_folder import replaced

logger = logging.getLogger(__name__)


def continue_from(folder: str, model: UnifiedConfig, engine: EngineConfig, world: World) -> Unified:
    """The unified model of an earlier stage, with its sizes; what says how to train is this stage's."""
    unified = load_unified(folder, engine.dtype, partitioned_loading(engine, world), whole)
    own = trained_as(model, unified.model.config)
    if model not in (own, trained_as(model, UnifiedConfig())):
        raise ValueError(
            f"model.* describes another model than init={folder}, which brings its own: remove all of model but "
            "model.loss_weights, model.visual_dropout, model.llm.attn_implementation and gradient_checkpointing of "
            "model.llm and model.heads"
        )
    unified.model.config = own
    unified.model.llm.set_attn_implementation(resolve_attention(own.llm.attn_implementation))
    set_checkpointing(unified.model.llm, own.llm.gradient_checkpointing)
    if own.heads is not None:
        for branch in BRANCHES:
            unified.model.head(branch).gradient_checkpointing = own.heads.gradient_checkpointing
    return unified


def trained_as(model: UnifiedConfig, own: UnifiedConfig) -> UnifiedConfig:
    """`own`, trained in the way that `model` says."""
    running = {name: getattr(model.llm, name) for name in ("attn_implementation", "gradient_checkpointing")}
    llm, heads = replace(own.llm, **running), own.heads
    if heads is not None and model.heads is not None:
        heads = replace(heads, gradient_checkpointing=model.heads.gradient_checkpointing)
    return replace(own, llm=llm, heads=heads, loss_weights=model.loss_weights, visual_dropout=model.visual_dropout)


def begin(
    model: UnifiedConfig, tokenizer: str, vocabulary: Vocabulary, seed: int, engine: EngineConfig, world: World
) -> Unified:
    """A new unified model around a trained tokenizer; all but an LLM with a path is drawn at random."""
    dual_tokenizer = DualTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(seed)  # the same weights on every rank
    with partitioned_loading(engine, world) if model.llm.path else nullcontext():
        llm = build_llm(model.llm, len(vocabulary), engine.dtype, vocabulary.new_ids, whole)
    codebooks = dual_tokenizer.codebooks()
    spec = VisualSpec.of(dual_tokenizer, codebooks.tokenizer_id)
    unified_model = UnifiedModel(model, spec, len(vocabulary), codebooks, dtype=engine.dtype, llm=llm)
    return Unified(unified_model, vocabulary, dual_tokenizer)


def outline(init: str | None, model: UnifiedConfig, tokenizer: str | None, vocabulary: str) -> Unified:
    """What a stage trains, without its weights: the model is on the meta device."""
    if init is not None:
        unified = load_unified(init, device="meta")
        unified.model.config = trained_as(model, unified.model.config)
        return unified
    text, dual_tokenizer = Vocabulary.from_pretrained(vocabulary), DualTokenizer.from_pretrained(tokenizer or "")
    with torch.device("meta"):
        llm = outline_llm(model.llm, len(text), text.new_ids)
        spec = VisualSpec.of(dual_tokenizer)
        unified_model = UnifiedModel(model, spec, len(text), dual_tokenizer.codebooks(), llm=llm)
    return Unified(unified_model, text, dual_tokenizer)


def frozen_weights(
    init: str | None, model: UnifiedConfig, vocabulary: Vocabulary, dtype: torch.dtype
) -> Mapping[str, Tensor]:
    """Weights that a stage did not draw at random when it began: it still has them where it does not train them."""
    if init is not None:
        folder = local_folder(init)
        return with_adapter(WeightFiles(folder), folder)
    if model.llm.path is None:
        return {}
    llm = build_llm(model.llm, len(vocabulary), dtype, vocabulary.new_ids)
    return {f"llm.{name}": parameter for name, parameter in llm.named_parameters()}


def open_vocabulary(
    path: str | None, size: int, sources: Sequence[SourceConfig], folder: Path, fresh: bool, world: World
) -> Vocabulary:
    """The vocabulary at `path`, or one of `size` entries trained on the texts of `sources` and kept in `folder`."""
    if path is not None:
        vocabulary = Vocabulary.from_pretrained(path)
        if vocabulary.new_ids and world.is_main:
            tokens = ", ".join(vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.new_ids))
            logger.warning("%s lacks %s: added, each beginning as the mean of the other tokens", path, tokens)
        return vocabulary
    if fresh:
        world.on_main(train_vocabulary, sources, size, folder)
    return Vocabulary.from_pretrained(folder)


def train_vocabulary(sources: Sequence[SourceConfig], size: int, folder: Path) -> None:
    with replaced(folder) as partial:
        Vocabulary.train(training_texts(sources), size).save_pretrained(partial)


def training_texts(sources: Sequence[SourceConfig]) -> Iterator[str]:
    """Every document of every source as the model will read it, turns and requests included, without the images."""
    num_bytes = 256
    spelling = Vocabulary.train([], num_bytes + len(CONTROL_TOKENS) + len(PLAIN_TOKENS))
    opened = open_sources(sources, spelling)  # picture files need no tokenizer for their texts
    total = sum(map(len, opened))
    with tqdm(total=total, desc="texts of the vocabulary", unit="text", disable=None) as bar:
        for place, source in enumerate(opened):
            for index in range(len(source)):
                bar.update()
                try:
                    document = source.document(index, np.random.default_rng((place, index)))
                except ValueError:
                    continue  # counted and reported where training meets it
                yield spelling.decode(document.input_ids.tolist())
