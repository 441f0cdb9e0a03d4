"""Adapters against peft's own, merged and apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor

from mllm.llm import build_llm
from mllm.lora import LoraConfig, add_adapters, take_off_adapters
from mllm.model import UnifiedModel
from mllm.pretrained import save_unified

LORA = LoraConfig(rank=4, alpha=6.0, dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])


def adapt(model: UnifiedModel, lora: LoraConfig = LORA) -> UnifiedModel:
    """With adapters that do something: B begins at zero."""
    add_adapters(model.llm, lora, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    return model


def logits(model: UnifiedModel) -> Tensor:
    return model.llm(input_ids=torch.arange(12).unsqueeze(0)).logits


def export(model: UnifiedModel, lora: LoraConfig, folder: Path, vocabulary, tokenizer) -> Path:
    weights = take_off_adapters(model.state_dict(), lora, folder / "adapter")
    model.visual = replace(model.visual, tokenizer_id=tokenizer.tokenizer_id)
    save_unified(model, folder, vocabulary, tokenizer, weights)
    return folder


def test_new_adapters_change_nothing_and_are_the_same_on_every_rank(make_model):
    model, other = make_model(), make_model()
    expected = logits(model)
    add_adapters(model.llm, LORA, seed=1)
    torch.rand(3)
    add_adapters(other.llm, LORA, seed=1)
    assert torch.equal(logits(model), expected)
    own = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    assert len(own) == 2 * 3 * 2  # layers × matrices × (A, B)
    assert all(torch.equal(p, other.get_parameter(name)) for name, p in own.items())


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_an_export_has_the_logits_of_the_adapted_model(make_model, vocabulary, tokenizer, tmp_path, merge, tied):
    model = make_model()
    model = make_model(llm=replace(model.config.llm, tie_word_embeddings=tied))
    names = set(dict(model.named_parameters()))
    base, lora = logits(model), replace(LORA, merge=merge)
    adapted = logits(adapt(model, lora))
    assert (adapted - base).abs().max() > 0.1
    folder = export(model, lora, tmp_path / "export", vocabulary, tokenizer)
    assert (folder / "adapter").is_dir() != merge
    loaded = UnifiedModel.from_pretrained(folder)
    assert set(dict(loaded.named_parameters())) == names
    torch.testing.assert_close(logits(loaded), adapted, rtol=1e-4, atol=1e-4)
    loaded.save_pretrained(folder, vocabulary, tokenizer)  # whole weights, to which no adapter is added again
    assert torch.equal(logits(UnifiedModel.from_pretrained(folder)), logits(loaded))


def test_peft_reads_an_adapter_that_was_left_apart(make_model, vocabulary, tokenizer, tmp_path):
    model = adapt(make_model(), replace(LORA, merge=False))
    folder = export(model, replace(LORA, merge=False), tmp_path / "export", vocabulary, tokenizer)
    base = build_llm(model.config.llm, model.vocab_size)
    base.load_state_dict(make_model().llm.state_dict())
    ids = torch.arange(12).unsqueeze(0)
    theirs = PeftModel.from_pretrained(base, folder / "adapter")
    torch.testing.assert_close(theirs(input_ids=ids).logits, logits(model))
    assert set(json.loads((folder / "adapter" / "adapter_config.json").read_text())["target_modules"]) == {
        *LORA.target_modules
    }


def test_mistakes_are_named(make_model, vocabulary, tokenizer, tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match="names lm_head: the LLM's layers have q_proj, k_proj"):
        add_adapters(model.llm, replace(LORA, target_modules=["q_proj", "lm_head"]), 0)
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"target_modules": []}):
        with pytest.raises(ValueError, match=f"lora.{next(iter(wrong))}"):
            LoraConfig(**wrong)
    lora = replace(LORA, merge=False)
    folder = export(adapt(model, lora), lora, tmp_path / "export", vocabulary, tokenizer)
    file = folder / "adapter" / "adapter_model.safetensors"
    foreign = {f"base_model.model.x.lora_{matrix}.weight": torch.ones(2, 2) for matrix in "AB"}
    for content in (b"\x00" * 50, save(foreign)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="holds no adapter of this model"):
            UnifiedModel.from_pretrained(folder)
