import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm.config import UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from mllm.pretrained import load_unified


@pytest.fixture
def make_saved(model, vocabulary, tokenizer, tmp_path):
    """The model rebuilt around that tokenizer, and its folder."""

    def make(tie_word_embeddings: bool = True) -> tuple[UnifiedModel, str]:
        llm = replace(model.config.llm, tie_word_embeddings=tie_word_embeddings, rope_theta=500.0)
        config = UnifiedConfig(llm=llm, heads=model.config.heads, visual_input="semantic")
        saved = UnifiedModel(config, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks())
        saved.save_pretrained(tmp_path / "export", vocabulary, tokenizer)
        return saved, tmp_path / "export"

    return make


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_round_trip_gives_identical_losses(make_saved, documents, pack, tie_word_embeddings):
    saved, folder = make_saved(tie_word_embeddings)
    loaded, vocabulary, tokenizer = load_unified(folder)
    batch = pack([[documents["draw"], documents["ask"]]])
    for ours, theirs in zip(loaded(batch), saved(batch), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded.config == saved.config and loaded.visual == saved.visual
    assert tokenizer.tokenizer_id == loaded.visual.tokenizer_id
    assert vocabulary.encode("a red apple") and not loaded.training
    tied = loaded.llm.get_output_embeddings().weight is loaded.llm.get_input_embeddings().weight
    assert tied == tie_word_embeddings


def test_flash_attention_is_no_need_of_those_who_read(make_saved):
    _, folder = make_saved()
    for path in (folder / "config.json", folder / "tokenizer/config.json"):
        text = re.sub(r'(attn_implementation|attention)": "\w+"', r'\1": "flash_attention_2"', path.read_text())
        path.write_text(text)
    loaded = load_unified(folder)
    assert loaded.model.config.llm.attn_implementation == loaded.tokenizer.config.attention == "flash_attention_2"
    assert loaded.model.llm.config._attn_implementation in ("sdpa", "flash_attention_2")
    assert loaded.tokenizer.tower.config._attn_implementation == "sdpa"


def test_from_pretrained_in_bfloat16(make_saved):
    saved, folder = make_saved()
    loaded = UnifiedModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(loaded.codebooks.pixel, saved.codebooks.pixel)


def test_weights_may_come_from_an_engine(make_saved, vocabulary, tokenizer):
    saved, folder = make_saved()
    state_dict = {name: torch.zeros_like(weight) for name, weight in saved.state_dict().items()}
    saved.save_pretrained(folder, vocabulary, tokenizer, state_dict)
    assert not any(parameter.any() for parameter in UnifiedModel.from_pretrained(folder).parameters())


def test_shards_give_the_same_model(make_saved, vocabulary, tokenizer, tmp_path):
    saved, folder = make_saved(tie_word_embeddings=False)
    saved.save_pretrained(tmp_path / "shards", vocabulary, tokenizer, max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    one, other = (UnifiedModel.from_pretrained(path).state_dict() for path in (folder, tmp_path / "shards"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_the_precision_on_the_disk_changes_no_code(make_saved, vocabulary, tokenizer, tmp_path, dtype):
    saved, _ = make_saved()
    saved.save_pretrained(tmp_path / "small", vocabulary, tokenizer, dtype=dtype)
    loaded = load_unified(tmp_path / "small")  # which compares the tokenizer's id
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    for ours, theirs in zip(loaded.tokenizer.encode(images), tokenizer.encode(images), strict=True):
        assert torch.equal(ours, theirs)
    weights = load_file(tmp_path / "small/tokenizer/model.safetensors")
    kinds = {name.split(".")[0]: weight.dtype for name, weight in weights.items()}
    assert kinds["decoder"] == kinds["semantic_out"] == torch.bfloat16
    assert kinds["tower"] == kinds["pixel_in"] == kinds["pixel_quantizer"] == torch.float32
    pairs = zip(loaded.model.state_dict().values(), saved.state_dict().values(), strict=True)
    assert 0 < max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs) < 0.01


def test_mistakes_are_named(make_saved, tokenizer, tmp_path):
    _, folder = make_saved()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_unified(tmp_path / "nothing")
    with pytest.raises(ValueError, match="does not describe a unified model"):
        load_unified(folder / "tokenizer")

    weights = load_file(folder / "model.safetensors")
    short = {name: weight for name, weight in weights.items() if "pixel_head.norm" not in name}
    save_file(short, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks weights \['pixel_head.norm.weight'\]"):
        load_unified(folder)
    save_file({**weights, "pixel_head.norm.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_unified(folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_unified(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_unified(folder)

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"config": {"head": 1}}))
    with pytest.raises(ValueError, match="another version"):
        load_unified(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_unified(folder)


def test_another_tokenizer_is_refused(make_saved, tokenizer):
    _, folder = make_saved()
    with torch.no_grad():
        next(tokenizer.pixel_in.parameters()).add_(1)
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    for load in (load_unified, UnifiedModel.from_pretrained):
        with pytest.raises(ValueError, match="put back the tokenizer"):
            load(folder)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ValueError, match="put back the tokenizer"):
        UnifiedModel.from_pretrained(folder, codebooks=tokenizer.codebooks())
