from dataclasses import replace

import pytest
import torch

from heads.cross_entropy import TextClassifier
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.llm import build_llm
from mllm.model import UnifiedModel
from tokenizer import Codebooks
from tokenizer.attention import resolve_attention
from tokenizer.tower import VisionTower


def test_the_output_classifier_stays_tied(model):
    llm = model.llm
    assert isinstance(llm.get_output_embeddings(), TextClassifier)
    assert llm.get_output_embeddings().weight is llm.get_input_embeddings().weight
    untied = build_llm(replace(model.config.llm, tie_word_embeddings=False), 40)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


def test_initial_weights_are_those_of_transformers(model):
    torch.manual_seed(0)
    embedding = build_llm(replace(model.config.llm, hidden_size=64), 500).get_input_embeddings().weight
    assert embedding.std().item() == pytest.approx(0.02, rel=0.05)


def test_weights_from_a_folder(model, tmp_path):
    model.llm.save_pretrained(tmp_path)
    loaded = build_llm(LLMConfig(path=str(tmp_path)), model.vocab_size, torch.bfloat16)
    assert loaded.config.num_hidden_layers == 2 and loaded.dtype == torch.bfloat16
    for name, weight in model.llm.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.bfloat16())


def test_mistakes_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"llm\.path"):
        build_llm(LLMConfig(path=str(tmp_path / "nothing")), 40)
    model.llm.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="vocabulary has 100000 entries"):
        build_llm(LLMConfig(path=str(tmp_path)), 100_000)
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match=r"llm.path=.* holds no language model") as mistake:
        build_llm(LLMConfig(path=str(tmp_path)), 40)
    assert len(str(mistake.value)) < 400  # without the names of all models that transformers knows
    with pytest.raises(ValueError, match="hidden_size=64 must be a multiple of num_attention_heads=5"):
        LLMConfig(hidden_size=64, num_attention_heads=5)
    with pytest.raises(ValueError, match="visual_input='none'"):
        UnifiedConfig(visual_input="none")


def test_attention_by_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("tokenizer.attention.is_flash_attn_2_available", lambda: True)
    assert resolve_attention("auto") == "flash_attention_2"
    assert resolve_attention("eager") == "eager"
    assert resolve_attention("flash_attention_2") == "flash_attention_2"
    monkeypatch.setattr("tokenizer.attention.is_flash_attn_2_available", lambda: False)
    assert resolve_attention("auto") == resolve_attention("flash_attention_2", required=False) == "sdpa"
    for build in (
        lambda: build_llm(LLMConfig(attn_implementation="flash_attention_2"), 40),
        lambda: VisionTower({}, "flash_attention_2"),
    ):
        with pytest.raises(ValueError, match="flash_attention_2 needs a CUDA GPU and its package"):
            build()


def test_the_defaults_are_the_size_of_the_paper():
    """Qwen-2.5-3B with two heads of eight classifiers of 16,384, built without memory."""
    visual = VisualSpec(grid=(27, 27), depth=8, codebook_size=16384, code_dim=32, tokenizer_id="tok")
    with torch.device("meta"):
        codebooks = Codebooks(torch.empty(1, 16384, 32), torch.empty(1, 16384, 32))
        model = UnifiedModel(UnifiedConfig(), visual, 151_936, codebooks)
    num_llm = sum(parameter.numel() for parameter in model.llm.parameters())
    assert num_llm == 3_085_938_688  # as counted in the published checkpoint
    assert model.pixel_head.classifiers.weight.shape == (8, 16384, 1024)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("num_spare", [0, 4])
def test_new_tokens_begin_as_the_mean_of_the_others(model, tmp_path, tied, num_spare):
    """With rows to spare, as padded vocabularies have, the embedding grows by the missing ones alone."""
    llm = build_llm(replace(model.config.llm, tie_word_embeddings=tied), 40 + num_spare)
    llm.save_pretrained(tmp_path)
    grown = build_llm(LLMConfig(path=str(tmp_path)), 46, new_ids=range(40, 46))
    assert grown.config.vocab_size == grown.get_output_embeddings().out_features == 46
    assert (grown.get_output_embeddings().weight is grown.get_input_embeddings().weight) == tied
    for old, new in (
        (llm.get_input_embeddings(), grown.get_input_embeddings()),
        (llm.get_output_embeddings(), grown.get_output_embeddings()),
    ):
        assert torch.equal(new.weight[:40], old.weight[:40])
        torch.testing.assert_close(new.weight[40:], old.weight[:40].mean(0).expand(6, -1))
    with pytest.raises(ValueError, match="vocabulary has 106 entries"):
        build_llm(LLMConfig(path=str(tmp_path)), 106, new_ids=range(100, 106))
