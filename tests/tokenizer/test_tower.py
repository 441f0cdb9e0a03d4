"""Towers against unwrapped `transformers` models: DINOv2 layer by layer, other resolutions, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.tokenizer.conftest import TOWER, tiny_config
from tokenizer import DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import KNOWN_TOWERS, vision_config_of

DINO = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4)
DINO_MODELS = {
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**DINO)), 1),
    "registers": (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINO, num_register_tokens=2)), 3),
}


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """`model` with every parameter away from zero: DINOv2 starts with zero tokens and neutral norms."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=DINO_MODELS)
def dino(request, tmp_path) -> tuple[torch.nn.Module, int, str]:
    """A DINOv2, how many of its tokens are no patches, and its folder."""
    build, extra = DINO_MODELS[request.param]
    model = spread(build())
    model.save_pretrained(tmp_path / "dino")
    return model, extra, str(tmp_path / "dino")


def imagenet(pixel_values: torch.Tensor) -> torch.Tensor:
    """[−1, 1] → what DINOv2's own image processor gives for the same picture."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixel_values.movedim(1, -1) * 0.5 + 0.5 - mean) / std).movedim(-1, 1)


def test_dinov2_in_pieces_equals_the_unwrapped_model(dino, pixel_values):
    model, extra, folder = dino
    tower = VisionTower.from_pretrained(folder).eval()
    expected = model(imagenet(pixel_values), output_hidden_states=True)
    hidden = tower.run(tower.embed(pixel_values), 1, 2)
    torch.testing.assert_close(hidden, expected.hidden_states[2])
    torch.testing.assert_close(tower.patches(hidden), expected.hidden_states[2][:, extra:])
    pooled = tower.pool(tower.run(hidden, 3, 3))
    torch.testing.assert_close(pooled, expected.last_hidden_state[:, extra:].mean(1))


def test_a_tokenizer_on_dinov2_quantizes_patches_alone_and_survives_its_folder(dino, pixel_values, tmp_path):
    folder = dino[2]
    tokenizer = DualTokenizer.from_tower(tiny_config(tower=folder, pixel_layer=0)).eval()
    output, codes = tokenizer(pixel_values), tokenizer.encode(pixel_values)
    assert codes.pixel.shape == codes.semantic.shape == (2, 16, 3)
    assert output.reconstruction.shape == pixel_values.shape and output.semantic_features.shape == (2, 16, 16)
    torch.testing.assert_close(tokenizer.pooled_features(codes.semantic), output.pooled)  # codes carry all of it
    tokenizer.save_pretrained(str(tmp_path / "out"))
    loaded = DualTokenizer.from_pretrained(str(tmp_path / "out"))
    assert torch.equal(loaded.encode(pixel_values).semantic, codes.semantic)
    assert loaded.tokenizer_id == tokenizer.tokenizer_id


@pytest.mark.parametrize("size", [8, 24, 30])  # 30: patches of 4 leave a border, as 14 does at 384
def test_another_resolution_equals_interpolation_by_transformers(size, dino, tmp_path):
    siglip = spread(SiglipVisionModel(SiglipVisionConfig(**TOWER)))
    siglip.save_pretrained(tmp_path / "siglip")
    pixel_values = torch.rand(2, 3, size, size) * 2 - 1
    tower = VisionTower.from_pretrained(str(tmp_path / "siglip"), image_size=size).eval()
    assert tower.grid == (size // 4, size // 4)
    expected = siglip(pixel_values, interpolate_pos_encoding=True)
    torch.testing.assert_close(tower.pool(tower.run(tower.embed(pixel_values), 1, 3)), expected.pooler_output)
    model, _, folder = dino
    tower = VisionTower.from_pretrained(folder, image_size=size).eval()
    expected = model(imagenet(pixel_values), output_hidden_states=True)
    torch.testing.assert_close(tower.run(tower.embed(pixel_values), 1, 3), expected.hidden_states[3])


def test_a_tower_is_fp32_whatever_its_checkpoint_is(dino, pixel_values):
    model, _, folder = dino
    model.bfloat16().save_pretrained(folder)
    for tower in (VisionTower.from_pretrained(folder), VisionTower(vision_config_of(folder))):
        assert tower.run(tower.embed(pixel_values), 1, 1).dtype == torch.float32


def test_a_tokenizer_keeps_its_resolution(tmp_path):
    spread(SiglipVisionModel(SiglipVisionConfig(**TOWER))).save_pretrained(tmp_path / "tower")
    tokenizer = DualTokenizer.from_tower(tiny_config(tower=str(tmp_path / "tower"), image_size=24)).eval()
    assert (tokenizer.image_size, tokenizer.grid) == (24, (6, 6))
    tokenizer.save_pretrained(str(tmp_path / "out"))
    pixel_values = torch.rand(1, 3, 24, 24)
    loaded = DualTokenizer.from_pretrained(str(tmp_path / "out"))
    assert torch.equal(loaded.encode(pixel_values).semantic, tokenizer.encode(pixel_values).semantic)
    with pytest.raises(ValueError, match="image_size 3 is less than one patch"):
        vision_config_of(str(tmp_path / "tower"), 3)


def test_what_has_no_fixed_grid_is_refused(tmp_path):
    Siglip2Config(vision_config=dict(hidden_size=16, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"NaFlex.*fixed size"):
        VisionTower.from_pretrained(str(tmp_path))
    Path(tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="bert model; a SigLIP, SigLIP2 or DINOv2"):
        VisionTower.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", KNOWN_TOWERS)
def test_the_towers_of_the_full_configs_are_known_without_a_network(name):
    with torch.device("meta"):
        tower = VisionTower(vision_config_of(name))
    patch, size = name.rsplit("patch", 1)[1].split("-")
    assert (tower.image_size, tower.grid[0], tower.num_layers) == (int(size), int(size) // int(patch), 27)
    assert sum(p.numel() for p in tower.parameters()) == pytest.approx(428e6, abs=1e6)
