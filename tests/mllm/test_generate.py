import pytest
import torch

import heads.sampling
from heads.sampling import BranchSampling, SamplingConfig
from mllm.decoding import CachedDecoder, left_pad
from mllm.generate import generate_images
from tests.mllm.conftest import OTHER_HEADS
from tokenizer import DualCodes

CAPTIONS = ["a red apple", "a waving hand in a very long caption, 3d style", "x"]
SEEDS = [7, 8, 9]


@pytest.fixture
def drawn_logits(monkeypatch):
    """Every guided float[B, K] that a code was drawn from, in order: position, codebook, depth."""
    seen = []
    original = heads.sampling.draw
    monkeypatch.setattr(heads.sampling, "draw", lambda logits, *rest: seen.append(logits) or original(logits, *rest))
    return seen


def teacher_forced(model, prompt: list[int], codes: DualCodes):
    """Logits float[N, 2, D, K] of one image after a prompt: no cache, no padding, no batch."""
    num_patches = len(codes.pixel)
    ids = torch.tensor([prompt + [0] * num_patches])
    image_mask = torch.arange(ids.shape[1])[None] >= len(prompt)
    embeddings = model.embed(ids, image_mask, DualCodes(codes.pixel[None], codes.semantic[None]))
    hidden_states = model.decode_packed(embeddings, torch.arange(ids.shape[1])[None])[0, len(prompt) - 1 : -1]
    branches = []
    for branch in ("pixel", "semantic"):
        head = getattr(model, f"{branch}_head")
        states = head(hidden_states, model.code_vectors(branch, getattr(codes, branch)))
        branches.append(torch.einsum("ndw,dkw->ndk", states, head.classifiers.weight))
    return torch.stack(branches, dim=1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"patch_positions": True}, {"heads": OTHER_HEADS}, {"visual_features": "post_quant"}],
    ids=["plain", "patch positions", "other heads", "post-quant"],
)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_cached_logits_equal_teacher_forced_logits(make_model, vocabulary, drawn_logits, cfg, changes):
    model = make_model(**changes)
    codes = generate_images(model, vocabulary, CAPTIONS, SamplingConfig(cfg=cfg), SEEDS)
    cached = torch.stack(drawn_logits).view(4, 2, 3, len(CAPTIONS), 8)
    with torch.no_grad():
        for i, caption in enumerate(CAPTIONS):
            image = DualCodes(codes.pixel[i], codes.semantic[i])
            conditional = teacher_forced(model, vocabulary.drawing_prompt(caption), image)
            unconditional = teacher_forced(model, vocabulary.drawing_prompt(None), image)
            expected = unconditional + cfg * (conditional - unconditional)
            torch.testing.assert_close(cached[..., i, :], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_an_image_does_not_depend_on_its_batch(model, vocabulary, cfg):
    sampling = SamplingConfig(cfg=cfg, top_k=6, top_p=0.9)
    together = generate_images(model, vocabulary, CAPTIONS, sampling, SEEDS)
    for i in range(3):
        alone = generate_images(model, vocabulary, [CAPTIONS[i]], sampling, [SEEDS[i]])
        assert torch.equal(alone.pixel[0], together.pixel[i])
        assert torch.equal(alone.semantic[0], together.semantic[i])
    other = generate_images(model, vocabulary, CAPTIONS, sampling, [1, 2, 3])
    assert not torch.equal(other.pixel, together.pixel)


def test_guidance_may_differ_by_codebook(model, vocabulary, drawn_logits):
    """With cfg 1 for both codebooks no unconditional row is run; with 1 for one, its logits are the plain ones."""
    plain = SamplingConfig(cfg=1.0, temperature=0.0)
    generate_images(model, vocabulary, CAPTIONS, plain, SEEDS)
    first = drawn_logits[:6]
    drawn_logits.clear()
    guided = SamplingConfig(cfg=1.0, temperature=0.0, semantic=BranchSampling(cfg=4.0))
    generate_images(model, vocabulary, CAPTIONS, guided, SEEDS)
    torch.testing.assert_close(drawn_logits[0], first[0], rtol=1e-4, atol=1e-4)  # pixel, depth 1
    assert (drawn_logits[3] - first[3]).abs().max() > 0.1  # semantic, depth 1


def test_callback_sees_each_position(model, vocabulary):
    seen = []
    codes = generate_images(
        model,
        vocabulary,
        CAPTIONS,
        SamplingConfig(),
        SEEDS,
        on_position=lambda position, codes: seen.append((position, codes.pixel.clone())),
    )
    assert [position for position, _ in seen] == [0, 1, 2, 3]
    for position, so_far in seen:
        assert torch.equal(so_far[:, : position + 1], codes.pixel[:, : position + 1])
        assert not so_far[:, position + 1 :].any()


def test_mode_gradients_and_precision_are_left_as_they_were(model, vocabulary):
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    model.train()
    model.llm.gradient_checkpointing_enable()
    codes = generate_images(model, vocabulary, CAPTIONS, SamplingConfig(), SEEDS)
    assert model.training and torch.is_grad_enabled() and matmul.fp32_precision == before
    evaluated = generate_images(model.eval(), vocabulary, CAPTIONS, SamplingConfig(), SEEDS)
    assert torch.equal(codes.pixel, evaluated.pixel)


@pytest.mark.parametrize(
    ("captions", "seeds", "sentence"),
    [
        ([], [], "is empty"),
        (["a cat", " "], [1, 2], "is empty"),
        (["a cat"], [1, 2], "1 captions but 2 seeds"),
        (["a cat " * 60], [1], "exceeds the language model's context of 128"),
    ],
)
def test_mistakes_are_named(model, vocabulary, captions, seeds, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate_images(model, vocabulary, captions, SamplingConfig(), seeds)


def test_left_padding(model):
    ids, mask = left_pad([[5, 6], [7, 8, 9]], 0, torch.device("cpu"))
    assert ids.tolist() == [[0, 5, 6], [7, 8, 9]]
    assert mask.tolist() == [[False, True, True], [True, True, True]]
    assert CachedDecoder(model, mask, 2).position_ids.tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]
