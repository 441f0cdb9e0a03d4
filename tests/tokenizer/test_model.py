"""The tokenizer against the unwrapped tower, its own parts, and its saved self."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from tests.tokenizer.conftest import TOWER, tiny_config
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig
from tokenizer.decoder import Decoder
from tokenizer.discriminator import AdversarialConfig
from tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from tokenizer.tower import VisionTower


def test_tower_in_pieces_equals_the_unwrapped_model(pixel_values):
    torch.manual_seed(0)
    tower = VisionTower(TOWER).eval()
    model = SiglipVisionModel(SiglipVisionConfig(**TOWER)).eval()
    model.load_state_dict(tower.model.state_dict())
    expected = model(pixel_values, output_hidden_states=True)
    hidden = tower.run(tower.embed(pixel_values), 1, 2)
    torch.testing.assert_close(hidden, expected.hidden_states[2])
    torch.testing.assert_close(tower.pool(tower.run(hidden, 3, 3)), expected.pooler_output)


def test_tower_loads_a_saved_siglip_whole_or_vision_only(tmp_path, pixel_values):
    model = SiglipVisionModel(SiglipVisionConfig(**TOWER)).eval()
    model.save_pretrained(tmp_path)
    tower = VisionTower.from_pretrained(str(tmp_path))
    pooled = tower.pool(tower.run(tower.embed(pixel_values), 1, 3))
    torch.testing.assert_close(pooled, model(pixel_values).pooler_output)


def test_shapes_and_that_encode_agrees_with_forward(tokenizer, pixel_values):
    output = tokenizer(pixel_values)
    codes = tokenizer.encode(pixel_values)
    assert output.reconstruction.shape == pixel_values.shape
    assert output.semantic_features.shape == (2, 16, 16)
    assert codes.pixel.shape == codes.semantic.shape == (2, 16, 3)
    assert torch.equal(codes.pixel, output.pixel_codes) and torch.equal(codes.semantic, output.semantic_codes)
    torch.testing.assert_close(tokenizer.decode(codes.pixel), output.reconstruction.clamp(-1, 1))
    torch.testing.assert_close(tokenizer.pooled_features(codes.semantic), output.pooled)
    embedded = tokenizer.embed(codes)
    books = tokenizer.codebooks()
    torch.testing.assert_close(embedded.pixel, books.pixel[0][codes.pixel].sum(2))
    torch.testing.assert_close(embedded.semantic, books.semantic[0][codes.semantic].sum(2))


def test_pixel_codes_ignore_the_layers_above_their_tap(tokenizer, pixel_values):
    before = tokenizer.encode(pixel_values)
    with torch.no_grad():
        for parameter in tokenizer.tower.model.encoder.layers[1].parameters():
            parameter.add_(torch.randn_like(parameter))
    after = tokenizer.encode(pixel_values)
    assert torch.equal(before.pixel, after.pixel)
    assert not torch.equal(before.semantic, after.semantic)


def test_pixel_codes_of_the_patch_embedding_see_their_own_patch_only(pixel_values):
    torch.manual_seed(0)
    tokenizer = DualTokenizer(tiny_config(pixel_layer=0), VisionTower(TOWER)).eval()
    before = tokenizer.encode(pixel_values)
    pixel_values[:, :, 4:8, 8:12] *= -1  # the patch in row 1, column 2
    after = tokenizer.encode(pixel_values)
    changed = (before.pixel != after.pixel).any(-1)
    assert changed[:, 6].all() and changed.sum() == 2
    assert (before.semantic != after.semantic).any(-1).sum() > 2


def test_save_and_load_keep_codes_pictures_and_identity(tokenizer, pixel_values, tmp_path):
    tokenizer.save_pretrained(str(tmp_path))
    loaded = DualTokenizer.from_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "config.json").read_text())["tokenizer_id"]
    assert loaded.tokenizer_id == tokenizer.tokenizer_id == written
    for ours, theirs in zip(tokenizer.encode(pixel_values), loaded.encode(pixel_values), strict=True):
        assert torch.equal(ours, theirs)
    codes = tokenizer.encode(pixel_values)
    torch.testing.assert_close(loaded.decode(codes.pixel), tokenizer.decode(codes.pixel))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.decoder.head[2].weight.is_contiguous(memory_format=torch.channels_last)
    loaded.train()(pixel_values)  # frozen: train() does not thaw the codebooks
    assert loaded.tokenizer_id == tokenizer.tokenizer_id


def test_identity_follows_what_decides_codes_and_nothing_else(tokenizer):
    identity = tokenizer.tokenizer_id
    with torch.no_grad():
        tokenizer.decoder.head[2].bias.add_(1)
    assert tokenizer.tokenizer_id == identity
    tokenizer.semantic_quantizer.codebooks[0].embedding.add_(1)
    assert tokenizer.tokenizer_id != identity
    identity, tokenizer.config = tokenizer.tokenizer_id, replace(tokenizer.config, crop="pad")
    assert tokenizer.tokenizer_id != identity


def test_what_is_not_finite_has_no_codes(tokenizer, pixel_values):
    pixel_values[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        tokenizer.encode(pixel_values)


def test_bad_folders_are_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        DualTokenizer.from_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "pixel_in.linear.weight": torch.zeros(5, 5)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"do not fit its config\.json.*pixel_in\.linear\.weight"):
        DualTokenizer.from_pretrained(str(tmp_path))
    Path(tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not the configuration"):
        DualTokenizer.from_pretrained(str(tmp_path))


def test_bad_choices_are_named(pixel_values):
    with pytest.raises(ValueError, match="beyond the tower's 3 layers"):
        DualTokenizer(tiny_config(semantic_layer=4), VisionTower(TOWER))
    with pytest.raises(ValueError, match="pixel_layer <= semantic_layer"):
        tiny_config(pixel_layer=3)
    with pytest.raises(ValueError, match="semantic_layer >= 1"):
        tiny_config(pixel_layer=0, semantic_layer=0)
    with pytest.raises(FileNotFoundError, match="train-tower"):
        VisionTower.from_pretrained("no/such/folder")
    with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
        DualTokenizer(tiny_config(), VisionTower(TOWER))(pixel_values[:, :, :8])


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        *((QuantizerConfig, wrong) for wrong in ({"code_dim": 0}, {"codebook_size": -8}, {"codebook_size": 2**17})),
        *((QuantizerConfig, wrong) for wrong in ({"depth": 0}, {"ema_decay": 1.0}, {"ema_update": "never"})),
        *((DecoderConfig, {"channel_multipliers": wrong}) for wrong in ([], [1, 0], [1, -1])),
        *((DecoderConfig, wrong) for wrong in ({"base_channels": 0}, {"num_res_blocks": -1}, {"in_channels": 130})),
        *((AdversarialConfig, wrong) for wrong in ({"base_channels": 0}, {"base_channels": 40}, {"num_layers": 0})),
        *((AdversarialConfig, wrong) for wrong in ({"weight": -1.0}, {"min_adaptive": 11.0})),
    ],
)
def test_sizes_that_mean_nothing_are_named(part, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        part(**wrong)


def test_decoder_bridges_a_27_grid_to_a_24_start():
    config = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1, 1, 1, 1], num_res_blocks=1)
    decoder = Decoder(config, in_width=12, grid=(27, 27), image_size=384)
    assert decoder.start_size == 24
    assert decoder(torch.randn(1, 729, 12)).shape == (1, 3, 384, 384)


def test_loss_is_the_weighted_sum_of_its_parts(tokenizer, pixel_values):
    weights = TokenizerLossConfig(reconstruction=2.0, perceptual=0.0, semantic=3.0, pooled=5.0, commitment=7.0)
    objective = TokenizerLoss(weights, VisionTower(TOWER), semantic_layer=2)
    output = tokenizer(pixel_values)
    total, parts = objective(output, pixel_values)
    torch.testing.assert_close(parts["reconstruction"], (output.reconstruction - pixel_values).square().mean())
    reference = objective.reference(pixel_values)
    difference = (output.semantic_features - reference.features).square().mean()
    cosine = torch.nn.functional.cosine_similarity(output.semantic_features, reference.features, dim=-1).mean()
    torch.testing.assert_close(parts["semantic"], difference - cosine)
    expected = 2 * parts["reconstruction"] + 3 * parts["semantic"] + 5 * parts["pooled"]
    torch.testing.assert_close(total, expected + 7 * (parts["pixel_commitment"] + parts["semantic_commitment"]))


def test_every_trainable_parameter_learns(tokenizer, pixel_values):
    objective = TokenizerLoss(TokenizerLossConfig(perceptual=0.0), VisionTower(TOWER), semantic_layer=2)
    total, _ = objective(tokenizer.train()(pixel_values), pixel_values)
    total.backward()
    without = [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not name.endswith("k_proj.bias")] == []  # keys' biases cancel in the softmax
    assert all(p.grad is None for p in objective.parameters())


def test_tokenizer_learns_to_reconstruct_one_batch(tokenizer, pixel_values):
    tokenizer.train()
    smooth = torch.nn.functional.interpolate(pixel_values[:, :, ::8, ::8], size=(16, 16), mode="bilinear")
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        output = tokenizer(smooth)
        loss = (output.reconstruction - smooth).square().mean()
        (loss + output.pixel_commitment).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
