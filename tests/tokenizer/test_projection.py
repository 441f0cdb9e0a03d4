"""Attention projections against a loop over heads and positions; the shortcut; older folders."""

import json

import pytest
import torch

from tests.tokenizer.conftest import TOWER, tiny_config
from tokenizer import DualTokenizer
from tokenizer.projection import AttentionProjection, ProjectionAttention
from tokenizer.tower import VisionTower


def build(**changes) -> DualTokenizer:
    torch.manual_seed(0)
    return DualTokenizer(tiny_config(**changes), VisionTower(TOWER)).eval()


@pytest.mark.parametrize(("in_width", "out_width"), [(12, 4), (4, 12)])
def test_attention_equals_a_loop_over_heads_and_positions(in_width, out_width):
    torch.manual_seed(0)
    attention, x = ProjectionAttention(in_width, out_width), torch.randn(1, 5, in_width)
    torch.nn.init.normal_(attention.query.bias)
    torch.nn.init.normal_(attention.value.bias)
    q, k, v = (linear(x)[0] for linear in (attention.query, attention.key, attention.value))
    rows = []
    for position in range(5):
        heads = []
        for head in range(3):
            at = slice(4 * head, 4 * head + 4)
            seen = range(position + 1) if out_width > in_width else range(5)
            weights = torch.softmax(torch.stack([q[position, at] @ k[other, at] / 2 for other in seen]), 0)
            heads.append(sum(weight * v[other, at] for weight, other in zip(weights, seen, strict=True)))
        rows.append(torch.cat(heads) if out_width > in_width else torch.stack(heads).mean(0))
    torch.testing.assert_close(attention(x)[0], attention.output(torch.stack(rows)))


def test_what_follows_the_quantizer_is_causal_and_what_precedes_it_is_not():
    torch.manual_seed(0)
    for in_width, out_width, changed in ((4, 12, [False] * 3 + [True] * 2), (12, 4, [True] * 5)):
        projection, x = AttentionProjection(in_width, out_width), torch.randn(1, 5, in_width)
        before = projection(x)
        x[:, 3] = torch.randn(in_width)
        assert (projection(x) != before).any(-1)[0].tolist() == changed


def test_widths_that_do_not_divide_are_named():
    for width in (5, 12):  # of equal ones neither could be told to be the codes', which are causal
        with pytest.raises(ValueError, match=rf"from 12 to {width} .* code_dim"):
            AttentionProjection(12, width)


def test_every_parameter_of_the_released_architecture_learns(pixel_values):
    tokenizer = build(projection="attention", pixel_shortcut_layer=0).train()
    output = tokenizer(pixel_values)
    (output.reconstruction.square().mean() + output.pooled.square().mean()).backward()
    without = [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not name.endswith("k_proj.bias")] == []


def test_the_shortcut_is_added_to_what_the_pixel_quantizer_sees_and_to_nothing_else(pixel_values):
    tokenizer = build(pixel_layer=2, semantic_layer=3, pixel_shortcut_layer=1, pixel_shortcut_weight=0.25)
    seen = []
    for quantizer in (tokenizer.pixel_quantizer, tokenizer.semantic_quantizer):
        quantizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = tokenizer(pixel_values)
    hidden = tokenizer.tower.model(pixel_values, output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen[0], tokenizer.pixel_in(hidden[2]) + 0.25 * tokenizer.pixel_shortcut(hidden[1]))
    torch.testing.assert_close(seen[1], tokenizer.semantic_in(hidden[3]))
    assert torch.equal(tokenizer.encode(pixel_values).pixel, output.pixel_codes)


def test_identity_follows_the_shortcut():
    choices = (1, 0.6), (0, 0.6), (1, 1.0)
    identities = {build(pixel_shortcut_layer=n, pixel_shortcut_weight=w).tokenizer_id for n, w in choices}
    tokenizer = build(pixel_shortcut_layer=1)
    with torch.no_grad():
        tokenizer.pixel_shortcut.linear.bias.add_(1)
    assert len(identities | {tokenizer.tokenizer_id}) == 4


def test_released_choices_survive_the_folder_and_older_folders_load(pixel_values, tmp_path):
    released = build(projection="attention", pixel_shortcut_layer=0)
    released.save_pretrained(str(tmp_path / "new"))
    loaded = DualTokenizer.from_pretrained(str(tmp_path / "new"))
    assert loaded.config == released.config and loaded.tokenizer_id == released.tokenizer_id
    assert torch.equal(loaded.encode(pixel_values).pixel, released.encode(pixel_values).pixel)

    plain = build()
    plain.save_pretrained(str(tmp_path / "old"))
    path = tmp_path / "old" / "config.json"
    document = json.loads(path.read_text())
    for key in ("projection", "pixel_shortcut_layer", "pixel_shortcut_weight", "image_size"):  # what it did not know
        del document["tokenizer"][key]
    path.write_text(json.dumps(document))
    loaded = DualTokenizer.from_pretrained(str(tmp_path / "old"))
    assert loaded.tokenizer_id == plain.tokenizer_id == document["tokenizer_id"]
    assert torch.equal(loaded.encode(pixel_values).pixel, plain.encode(pixel_values).pixel)


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="linear or attention, not 'conv'"):
        tiny_config(projection="conv")
    with pytest.raises(ValueError, match=r"pixel_shortcut_layer .* not 2"):
        tiny_config(pixel_shortcut_layer=2)
    with pytest.raises(ValueError, match="no place for pixel_shortcut_layer"):
        tiny_config(pixel_layer=2, single_codebook=True, pixel_shortcut_layer=1)
