"""What a stage starts from, as the stage makes it and as an export of its checkpoints does."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaTokenizer

from data.vocabulary import Vocabulary
from mllm.config import LLMConfig, UnifiedConfig
from mllm.llm import build_llm
from tests.train.tiny_mllm import TOWER, make_world, tiny_config
from train.build_mllm import begin, continue_from, frozen_weights, open_vocabulary, outline
from train.distributed import World
from train.engine_config import EngineConfig
from train.planned_model import planned_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.mark.parametrize("num_spare", [0, 16])
def test_an_export_has_the_rows_of_tokens_that_the_llm_lacked(world, tmp_path, num_spare):
    """Those of the stage itself, whether the LLM's vocabulary had to grow for them or was padded."""
    LlamaTokenizer().train_new_from_iterator(["Draw: a red apple"] * 4, 300).save_pretrained(tmp_path / "text")
    text = Vocabulary.from_pretrained(tmp_path / "text")
    llm = LLMConfig(**TOWER, num_key_value_heads=1, max_position_embeddings=128)
    build_llm(llm, len(text) - len(text.new_ids) + num_spare).save_pretrained(tmp_path / "llm")
    config = UnifiedConfig(llm=LLMConfig(path=str(tmp_path / "llm")), heads=None)
    tokenizer, engine = str(world / "tokenizer"), EngineConfig(zero_stage=0, precision="bf16")
    made = begin(config, tokenizer, text, 0, engine, World()).model
    outlined = outline(None, config, tokenizer, str(tmp_path / "text")).model
    sizes = {"llm": {"path": str(tmp_path / "llm")}, "heads": None}
    trainable = ["llm", "projector"]
    planned, _ = planned_model(tiny_config(world, vocabulary=str(tmp_path / "text"), model=sizes, trainable=trainable))
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (made, outlined, planned)]
    assert shapes[0] == shapes[1] == shapes[2]
    frozen = frozen_weights(None, config, text, engine.dtype)
    assert len(frozen) > 9 and all(torch.equal(made.get_parameter(name), weight) for name, weight in frozen.items())


def test_tokens_that_a_vocabulary_lacks_are_named_once(tmp_path, caplog):
    LlamaTokenizer().train_new_from_iterator(["Draw: a red apple"] * 4, 300).save_pretrained(tmp_path)
    for rank in (0, 1):
        text = open_vocabulary(str(tmp_path), 0, [], tmp_path, fresh=True, world=World(rank=rank, size=2))
    (warning,) = (message for message in caplog.messages if "lacks" in message)
    lacking = text.tokenizer.convert_ids_to_tokens(text.new_ids)
    assert lacking and f"{tmp_path} lacks {', '.join(lacking)}: added" in warning


def test_a_later_stage_has_its_own_kind_of_attention(world, tmp_path):
    """Which changes no weight. Sizes, which do, are those of the earlier stage."""
    sizes = UnifiedConfig(llm=LLMConfig(**TOWER, num_key_value_heads=1, max_position_embeddings=128), heads=None)
    engine, text = EngineConfig(zero_stage=0), Vocabulary.train([], 300)
    earlier = begin(sizes, str(world / "tokenizer"), text, 0, engine, World())
    earlier.model.save_pretrained(tmp_path, text, earlier.tokenizer)
    eager = UnifiedConfig(llm=LLMConfig(attn_implementation="eager"))
    later = continue_from(str(tmp_path), eager, engine, World()).model
    assert later.llm.config._attn_implementation == later.config.llm.attn_implementation == "eager"
    assert earlier.model.llm.config._attn_implementation != "eager" and later.config.llm.hidden_size == 16
    with pytest.raises(ValueError, match=r"model\.llm\.attn_implementation and gradient_checkpointing"):
        continue_from(str(tmp_path), UnifiedConfig(llm=LLMConfig(num_hidden_layers=3)), engine, World())
