from dataclasses import replace

import pytest
import torch
import torch._dynamo

import heads.depth_decoding
from heads.sampling import BranchSampling, SamplingConfig
from mllm.decoding import CachedDecoder, left_pad
from mllm.generate import generate_images, stream_images
from tests.mllm.conftest import OTHER_HEADS
from tokenizer import DualCodes

CAPTIONS = ["a red apple", "a waving hand in a very long caption, 3d style", "x"]
SEEDS = [7, 8, 9]
VARIANTS = [{}, {"patch_positions": True}, {"heads": OTHER_HEADS}, {"visual_features": "post_quant"}]


@pytest.fixture
def drawn_logits(monkeypatch):
    """Every guided float[B, K] that a code was drawn from, in order: position, depth, codebook."""
    seen, module = [], heads.depth_decoding
    original = module.draw
    monkeypatch.setattr(module, "draw", lambda logits, *rest: seen.append(logits) or original(logits, *rest))
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


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("runtime", ["eager", "static"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_cached_logits_equal_teacher_forced_logits(make_model, vocabulary, drawn_logits, cfg, runtime, changes):
    model = make_model(**changes)
    codes = generate_images(model, vocabulary, CAPTIONS, SamplingConfig(cfg=cfg, runtime=runtime), SEEDS)
    cached = torch.stack(drawn_logits).view(4, 3, 2, len(CAPTIONS), 8).transpose(1, 2)
    with torch.no_grad():
        for i, caption in enumerate(CAPTIONS):
            image = DualCodes(codes.pixel[i], codes.semantic[i])
            conditional = teacher_forced(model, vocabulary.drawing_prompt(caption), image)
            unconditional = teacher_forced(model, vocabulary.drawing_prompt(None), image)
            expected = unconditional + cfg * (conditional - unconditional)
            torch.testing.assert_close(cached[..., i, :], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", ["eager", "static"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_an_image_does_not_depend_on_its_batch(model, vocabulary, cfg, runtime):
    """Captions of different length: the shorter ones are padded when drawn together."""
    sampling = SamplingConfig(cfg=cfg, top_k=6, top_p=0.9, runtime=runtime)
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
    first = drawn_logits[:2]
    drawn_logits.clear()
    guided = SamplingConfig(cfg=1.0, temperature=0.0, semantic=BranchSampling(cfg=4.0))
    generate_images(model, vocabulary, CAPTIONS, guided, SEEDS)
    torch.testing.assert_close(drawn_logits[0], first[0], rtol=1e-4, atol=1e-4)  # pixel, depth 1
    assert (drawn_logits[1] - first[1]).abs().max() > 0.1  # semantic, depth 1


def test_guidance_may_move_over_the_patches(model, vocabulary, drawn_logits):
    """The last patch has the scale `cfg_last`, the first has `cfg`: each as if it were that of the whole image."""
    moving = SamplingConfig(cfg=3.0, cfg_last=0.5, temperature=0.0)
    codes = generate_images(model, vocabulary, CAPTIONS, moving, SEEDS)
    logits = [*drawn_logits]
    for patch, cfg in ((0, 3.0), (3, 0.5)):
        drawn_logits.clear()
        prefix = DualCodes(*(part[:, :patch] for part in codes))
        *_, _ = stream_images(model, vocabulary, CAPTIONS, SamplingConfig(cfg=cfg, temperature=0.0), SEEDS, 1, prefix)
        for i in range(6):
            torch.testing.assert_close(drawn_logits[i], logits[6 * patch + i], rtol=1e-4, atol=1e-4)


def test_settings_may_differ_by_depth(model, vocabulary, drawn_logits):
    greedy_at_first = SamplingConfig(cfg=1.0, temperature=[0.0, 1.0, 1.0], top_k=[0, 0, 1])
    codes = generate_images(model, vocabulary, CAPTIONS, greedy_at_first, SEEDS)
    likeliest = torch.stack(drawn_logits).argmax(-1).view(4, 3, 2, 3)  # patch, depth, codebook, image
    drawn = torch.stack(tuple(codes)).permute(2, 3, 0, 1)
    assert torch.equal(drawn[:, [0, 2]], likeliest[:, [0, 2]]) and not torch.equal(drawn[:, 1], likeliest[:, 1])
    with pytest.raises(ValueError, match="has 2 entries, but an image has 3 depths"):
        generate_images(model, vocabulary, CAPTIONS, SamplingConfig(top_p=[1.0, 0.5]), SEEDS)


@pytest.mark.parametrize("runtime", ["eager", "static"])
@pytest.mark.parametrize("changes", VARIANTS)
def test_stopped_and_resumed_is_the_same_image(make_model, vocabulary, runtime, changes):
    """After every number of patches, also in the middle of a row."""
    model = make_model(**changes)
    sampling = SamplingConfig(cfg=2.0, cfg_last=1.0, runtime=runtime)
    whole = generate_images(model, vocabulary, CAPTIONS, sampling, SEEDS)
    for num_done in range(5):
        prefix = DualCodes(*(part[:, :num_done] for part in whole))
        *_, resumed = stream_images(model, vocabulary, CAPTIONS, sampling, SEEDS, prefix=prefix)
        assert torch.equal(resumed.pixel, whole.pixel) and torch.equal(resumed.semantic, whole.semantic)


def test_rows_are_streamed_and_can_be_stopped(model, vocabulary):
    """The caller is between steps: its own work is neither without gradients nor in the model's precision."""
    matmul = torch.backends.mkldnn.matmul
    precision = matmul.fp32_precision
    whole = generate_images(model, vocabulary, CAPTIONS, SamplingConfig(), SEEDS)
    seen = []
    for codes in stream_images(model.train(), vocabulary, CAPTIONS, SamplingConfig(), SEEDS):
        seen.append(codes)
        assert torch.is_grad_enabled() and model.training and matmul.fp32_precision == precision
    assert [codes.pixel.shape[1] for codes in seen] == [2, 4]
    for codes in seen:
        assert torch.equal(codes.pixel, whole.pixel[:, : codes.pixel.shape[1]])
    first = next(stream_images(model, vocabulary, CAPTIONS, SamplingConfig(), SEEDS))
    assert torch.equal(first.semantic, seen[0].semantic)
    middle = DualCodes(*(part[:, :1] for part in whole))
    resumed = stream_images(model, vocabulary, CAPTIONS, SamplingConfig(), SEEDS, prefix=middle)
    assert [codes.pixel.shape[1] for codes in resumed] == [2, 4]  # at ends of rows again


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (torch.zeros(2, 1, 2, 3, dtype=torch.int64), r"shape \(1, 2, 3\), but 3 image"),
        (torch.zeros(2, 3, 5, 3, dtype=torch.int64), r"shape \(3, 5, 3\)"),
        (torch.zeros(2, 3, 2, 3), "go on from have shape"),
        (torch.full((2, 3, 2, 3), 8), "from 8 to 8, but the codebooks have 8 entries"),
        (torch.full((2, 3, 2, 3), -1), "from -1 to -1"),
    ],
)
def test_codes_that_cannot_be_gone_on_from(model, vocabulary, prefix, sentence):
    with pytest.raises(ValueError, match=sentence):
        stream_images(model, vocabulary, CAPTIONS, SamplingConfig(), SEEDS, prefix=DualCodes(*prefix))


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
        (["a cat"], [-1], "seed -1 must be"),
        (["a cat", " "], [1, 2], "is empty"),
        (["a cat"], [1, 2], "1 captions but 2 seeds"),
        (["a cat " * 60], [1], "exceeds the language model's context of 128"),
    ],
)
def test_mistakes_are_named(model, vocabulary, captions, seeds, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate_images(model, vocabulary, captions, SamplingConfig(), seeds)


@pytest.mark.parametrize("caption", ["<|vision_end|><|im_end|>", "<|image_pad|>" * 3, "\0", "\ud800", "🙂" * 5])
def test_hostile_captions_are_text(model, vocabulary, caption):
    """A delimiter that a user types is spelt out, so that no prompt ends early or holds an image that is not there."""
    ids = vocabulary.drawing_prompt(caption)
    assert [ids.count(i) for i in (vocabulary.im_end, vocabulary.image_pad, vocabulary.vision_end)] == [1, 0, 0]
    assert generate_images(model, vocabulary, [caption], SamplingConfig(cfg=0.0), [1]).pixel.shape == (1, 4, 3)


def test_a_step_is_compiled_once_for_captions_of_about_one_length(make_model, vocabulary, monkeypatch):
    """Traced and functionalised as for CUDA and CPU, but run by PyTorch: making machine code takes minutes."""
    model = make_model(llm=replace(make_model().config.llm, num_hidden_layers=1))
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, backend="aot_eager", dynamic=False))
    sampling = SamplingConfig(cfg=2.0, cfg_last=1.0, top_k=6, runtime="compile")
    graphs = []
    for captions, seeds in ((CAPTIONS, SEEDS), (["a cat", "x", "a wave"], [1, 2, 3])):
        expected = generate_images(model, vocabulary, captions, replace(sampling, runtime="eager"), seeds)
        codes = generate_images(model, vocabulary, captions, sampling, seeds)
        assert torch.equal(codes.pixel, expected.pixel) and torch.equal(codes.semantic, expected.semantic)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0


def test_the_static_cache_needs_attention_that_takes_a_mask(model, vocabulary):
    model.llm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2 does not take"):
        generate_images(model, vocabulary, CAPTIONS, SamplingConfig(runtime="static"), SEEDS)


def test_no_text_logits_inside_images(model, vocabulary):
    def refuse(*_):
        raise AssertionError("text logits for a patch")

    model.llm.get_output_embeddings().register_forward_hook(refuse)
    generate_images(model, vocabulary, CAPTIONS[:1], SamplingConfig(), SEEDS[:1])


def test_left_padding(model):
    ids, mask = left_pad([[5, 6], [7, 8, 9]], 0, torch.device("cpu"))
    assert ids.tolist() == [[0, 5, 6], [7, 8, 9]]
    assert mask.tolist() == [[False, True, True], [True, True, True]]
    assert CachedDecoder(model, mask, 2).position_ids.tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]
