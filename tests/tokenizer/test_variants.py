"""The paper's comparisons as choices of the config, and branches that are not run."""

import pytest
import torch
from safetensors.torch import load_file

from tests.tokenizer.conftest import TOWER, tiny_config
from tokenizer import DualTokenizer
from tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from tokenizer.tower import VisionTower


def build(**changes) -> DualTokenizer:
    torch.manual_seed(0)
    return DualTokenizer(tiny_config(**changes), VisionTower(TOWER)).eval()


def test_one_codebook_gives_one_set_of_codes_and_is_saved_once(pixel_values, tmp_path):
    model = build(pixel_layer=2, single_codebook=True)
    codes = model.encode(pixel_values)
    assert torch.equal(codes.pixel, codes.semantic)
    output = model(pixel_values)
    assert torch.equal(output.pixel_codes, codes.pixel) and torch.equal(output.semantic_codes, codes.semantic)
    assert output.semantic_commitment is None  # it is the pixel branch's, and would count twice
    model.save_pretrained(str(tmp_path))
    assert not any(name.startswith("semantic_quantizer") for name in load_file(tmp_path / "model.safetensors"))
    loaded = DualTokenizer.from_pretrained(str(tmp_path))
    assert loaded.tokenizer_id == model.tokenizer_id
    assert torch.equal(loaded.encode(pixel_values).semantic, codes.semantic)


def test_one_codebook_is_updated_once_a_step(pixel_values, monkeypatch):
    model, calls = build(pixel_layer=2, single_codebook=True).train(), []
    monkeypatch.setattr(type(model.pixel_quantizer.codebooks[0]), "update", lambda *a: calls.append(a))
    model(pixel_values)
    assert len(calls) == 1


def test_a_separate_pixel_tower_shares_nothing_with_the_tower(pixel_values, tmp_path):
    model = build(separate_pixel_tower=True)
    before = model.encode(pixel_values)
    assert model.pixel_tower.num_layers == 1
    with torch.no_grad():
        for parameter in model.tower.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = model.encode(pixel_values)
    assert torch.equal(before.pixel, after.pixel) and not torch.equal(before.semantic, after.semantic)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(DualTokenizer.from_pretrained(str(tmp_path)).encode(pixel_values).pixel, after.pixel)


@pytest.mark.parametrize("branch", ["pixel", "semantic"])
def test_a_branch_that_is_not_run_costs_nothing_and_changes_nothing(branch, pixel_values, monkeypatch):
    model = build().train()
    other = {"pixel": "semantic", "semantic": "pixel"}[branch]
    books = {name: getattr(model, f"{name}_quantizer").codebooks[0].embedding.clone() for name in (branch, other)}

    def refused(*_):
        raise AssertionError("not asked for")

    monkeypatch.setattr(model.decoder if other == "pixel" else model.semantic_out, "forward", refused)
    output = model(pixel_values, [branch])
    assert getattr(output, f"{branch}_codes") is not None and getattr(output, f"{other}_codes") is None
    assert torch.equal(getattr(model, f"{other}_quantizer").codebooks[0].embedding, books[other])
    assert not torch.equal(getattr(model, f"{branch}_quantizer").codebooks[0].embedding, books[branch])
    total, parts = TokenizerLoss(TokenizerLossConfig(perceptual=0.0), VisionTower(TOWER), 2)(output, pixel_values)
    assert total.isfinite() and f"{other}_commitment" not in parts


def test_the_losses_say_which_branches_are_run():
    assert TokenizerLossConfig().branches == ["pixel", "semantic"]
    assert TokenizerLossConfig(semantic=0.0, pooled=0.0).branches == ["pixel"]
    assert TokenizerLossConfig(reconstruction=0.0, perceptual=0.0).branches == ["semantic"]


def test_choices_that_contradict_are_named():
    with pytest.raises(ValueError, match="single_codebook needs"):
        tiny_config(single_codebook=True)
    with pytest.raises(ValueError, match="single_codebook needs"):
        tiny_config(pixel_layer=2, single_codebook=True, separate_pixel_tower=True)


def test_a_damaged_tower_is_one_sentence(tmp_path):
    VisionTower(TOWER).model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or of another size"):
        VisionTower.from_pretrained(str(tmp_path))
