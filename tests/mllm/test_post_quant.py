"""Visual features of the tokenizer's causal projections: its own numbers, patch by patch, frozen and unsaved."""

import pytest
import torch
import torch.nn.functional as F

from mllm.config import UnifiedConfig, VisualSpec
from mllm.loss import loss
from mllm.model import UnifiedModel
from mllm.pretrained import load_unified
from tests.mllm.conftest import H, N
from tokenizer import (
    Codebooks,
    DecoderConfig,
    DualCodes,
    DualTokenizer,
    ProjectionCache,
    QuantizerConfig,
    TokenizerConfig,
)
from tokenizer.tower import VisionTower

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def model(make_model) -> UnifiedModel:
    return make_model(visual_features="post_quant")


@pytest.fixture
def codes() -> DualCodes:
    return DualCodes(*torch.randint(8, (2, 2, N, 3), generator=torch.Generator().manual_seed(0)))


@pytest.fixture(params=["linear", "attention"])
def tokenizer(request) -> DualTokenizer:
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(
        pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder, projection=request.param
    )
    return DualTokenizer(config, VisionTower({**TOWER, "image_size": 8, "patch_size": 4})).freeze()


def test_features_are_those_of_the_tokenizer_and_survive_the_folder(
    tokenizer, model, vocabulary, codes, documents, pack, tmp_path
):
    config = UnifiedConfig(llm=model.config.llm, heads=model.config.heads, visual_features="post_quant")
    ours = UnifiedModel(config, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks())
    sums = tokenizer.embed(codes)
    expected = [tokenizer.pixel_out(sums.pixel), tokenizer.semantic_out(sums.semantic)]
    torch.testing.assert_close(list(ours.patch_features(codes)), [F.layer_norm(x, (16,)) for x in expected])
    assert not any("post_quant" in name for name in [*dict(ours.named_parameters()), *ours.state_dict()])
    assert all(parameter is not None for parameter in tokenizer.pixel_out.parameters())  # a copy was made

    ours.save_pretrained(tmp_path, vocabulary, tokenizer)
    loaded, batch = load_unified(tmp_path).model, pack([[documents["draw"], documents["ask"]]])
    for mine, theirs in zip(loaded(batch), ours(batch), strict=True):
        assert torch.equal(mine, theirs)


def test_patch_by_patch_equals_teacher_forcing(model, codes):
    with torch.no_grad():
        expected = model.visual_embedding(model.patch_features(codes))
        caches = {branch: ProjectionCache(N) for branch in codes._fields}
        spans = [slice(0, 2), *(slice(p, p + 1) for p in range(2, N))]  # two to go on from, then one by one
        patches = [DualCodes(*(branch[:, span] for branch in codes)) for span in spans]
        pieces = [model.visual_embedding(model.patch_features(patch, caches)) for patch in patches]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("changed", range(N))
def test_an_embedding_depends_on_the_codes_up_to_its_patch(model, codes, changed):
    before = model.patch_features(codes)
    codes.semantic[:, changed] = (codes.semantic[:, changed] + 1) % 8
    after = model.patch_features(codes)
    assert torch.equal(after.pixel, before.pixel) and after.pixel.shape == (2, N, H)
    assert (after.semantic != before.semantic).any(-1)[0].tolist() == [p >= changed for p in range(N)]


def test_a_cast_leaves_the_projections_alone_and_the_rest_learns(model, documents, pack):
    batch = pack([[documents["ask"], documents["draw"]], [documents["text"]]])
    loss(model(batch), model.config.loss_weights, 1).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    before = model.post_quant.projections["pixel"].residual.weight.clone()
    assert torch.equal(model.bfloat16().post_quant.projections["pixel"].residual.weight, before)
    assert torch.isfinite(model(batch).pixel_loss).all()


def test_mistakes_are_named(model, vocabulary):
    books = Codebooks(torch.ones(1, 8, 4), torch.ones(1, 8, 4))
    with pytest.raises(ValueError, match="needs the tokenizer's projections"):
        UnifiedModel(model.config, model.visual, len(vocabulary), books)
    with pytest.raises(ValueError, match="choose codebook, post_quant"):
        UnifiedConfig(visual_features="pre_quant")
