from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, AttentionMaskInterface, Qwen2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from data.batch import Batch
from heads.cross_entropy import IGNORE
from mllm.loss import LossSums, loss
from mllm.model import UnifiedModel
from tests.mllm.conftest import OTHER_HEADS
from tokenizer import Codebooks, DualCodes


def gradients(model: UnifiedModel, sums: LossSums) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss(sums, model.config.loss_weights, 1).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def add(all_sums: list[LossSums]) -> LossSums:
    return LossSums(*(sum(parts) for parts in zip(*all_sums, strict=True)))


def test_text_loss_is_that_of_the_unwrapped_llm(model, documents, pack):
    batch = pack([[documents["text"]], [documents["text"]]])
    bare = Qwen2ForCausalLM(model.llm.config)
    bare.load_state_dict(model.llm.state_dict())
    expected = bare(input_ids=batch.input_ids, labels=batch.labels)
    sums = model(batch)
    torch.testing.assert_close(sums.text_loss / sums.text_count, expected.loss)
    predicted = expected.logits[:, :-1].argmax(-1)
    assert sums.text_correct == (predicted == batch.labels[:, 1:]).sum()
    assert sums.visual_count == 0 and not sums.pixel_loss.any()


def test_visual_loss_is_a_sum_over_positions_and_depths(model, documents, pack):
    """Eq. 8 with plain loops: only the generated image, each patch from the hidden state before it."""
    batch = pack([[documents["ask"], documents["draw"]]])
    embeddings = model.embed(batch.input_ids, batch.image_mask, DualCodes(batch.pixel, batch.semantic))
    hidden_states = model.decode_packed(embeddings, batch.position_ids)[0]
    positions = batch.target_mask[0].nonzero().flatten().tolist()
    sums = model(batch)
    assert len(positions) == sums.visual_count == 4
    for branch in ("pixel", "semantic"):
        head, codes = getattr(model, f"{branch}_head"), getattr(batch, branch)[1]  # of the second image
        expected, correct = torch.zeros(3), torch.zeros(3, dtype=torch.int64)
        for patch, position in enumerate(positions):
            vectors = model.code_vectors(branch, codes[patch][None])[0]
            states = head(hidden_states[position - 1 : position], vectors[None])[0]
            for d in range(3):
                logits = head.classifiers.weight[d] @ states[d]
                expected[d] += F.cross_entropy(logits, codes[patch, d])
                correct[d] += logits.argmax() == codes[patch, d]
        torch.testing.assert_close(getattr(sums, f"{branch}_loss"), expected)
        assert torch.equal(getattr(sums, f"{branch}_correct"), correct)


def test_visual_dropout_hides_generated_images_alone_and_in_training_alone(make_model, documents, pack):
    model = make_model(visual_dropout=1 - 1e-6)
    batch = pack([[documents["ask"], documents["draw"]]])
    asked, drawn = 0, 1

    def effect(image: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What another code in the first patch of `image` changes in the losses of text and of semantic codes."""
        pixel = batch.pixel.clone()
        pixel[image, 0] = (pixel[image, 0] + 1) % model.visual.codebook_size
        before, after = model(batch), model(replace(batch, pixel=pixel))
        return (after.text_loss - before.text_loss).abs(), (after.semantic_loss - before.semantic_loss).abs().sum()

    model.train()
    assert effect(asked)[0] > 1e-4
    assert effect(drawn)[1] == 0
    assert torch.isfinite(model(pack([[documents["text"]]])).text_loss)  # a batch without images has none to hide
    model.eval()
    assert effect(drawn)[1] > 1e-4


def take_images(batch: Batch, images: list[int]) -> dict[str, torch.Tensor]:
    return {"pixel": batch.pixel[images], "semantic": batch.semantic[images]}


def test_packed_equals_unpacked_in_loss_and_gradients(model, documents, pack):
    draw, ask, text = documents["draw"], documents["ask"], documents["text"]
    packed = pack([[draw, text, ask], [text, draw]])
    images = {0: [0], 2: [1], 4: [2]}
    alone = [
        replace(pack([[document]]), **take_images(packed, images.get(i, [])))
        for i, document in enumerate([draw, text, ask, text, draw])
    ]
    together, apart = model(packed), add([model(batch) for batch in alone])
    for ours, theirs in zip(together, apart, strict=True):
        torch.testing.assert_close(ours, theirs)
    together, apart = gradients(model, together), gradients(model, apart)
    for name in together:
        torch.testing.assert_close(together[name], apart[name], rtol=1e-4, atol=1e-5)


def test_flash_attention_gets_one_row(model, documents, pack):
    """transformers' flash attention finds packed documents in one row only. Here SDPA stands in under such a name."""
    AttentionInterface.register("flash_stand_in", sdpa_attention_forward)
    AttentionMaskInterface.register("flash_stand_in", sdpa_mask)
    batch = pack([[documents["draw"], documents["text"]], [documents["ask"], documents["draw"]]])
    expected = model(batch)
    shapes = []
    model.llm.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["inputs_embeds"].shape), with_kwargs=True
    )
    model.llm.config._attn_implementation = "flash_stand_in"
    for ours, theirs in zip(model(batch), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert shapes == [(1, batch.input_ids.numel(), 16)]


@pytest.mark.parametrize("changes", [{}, {"heads": OTHER_HEADS}], ids=["plain", "other heads"])
@pytest.mark.parametrize("contents", [["text"], ["ask"], ["draw"], []])
def test_every_parameter_takes_part_in_every_step(make_model, documents, pack, contents, changes):
    """Without this, ZeRO-3 waits for ever: a batch that lacks something still runs every module, at zero weight."""
    model = make_model(**changes)
    batch = pack([[documents[name] for name in contents] or [documents["text"]]])
    if not contents:
        batch = replace(batch, labels=torch.full_like(batch.labels, IGNORE))
    num_rows = []
    parts = [model.pixel_head, model.semantic_head, model.llm.get_output_embeddings(), model.visual_embedding.up]
    for part in parts:
        part.register_forward_pre_hook(lambda _, inputs: num_rows.append(len(inputs[0])))
    sums = model(batch)
    assert len(num_rows) == len(parts) and min(num_rows) >= 1
    all_gradients = gradients(model, sums)  # fails where one is None
    if "draw" not in contents:
        assert not any(all_gradients[name].any() for name in all_gradients if "_head" in name)
        assert sums.visual_count == 0
    if not contents:
        assert not any(gradient.any() for gradient in all_gradients.values())
        assert sums.text_count == 0 and sums.text_loss == 0


def test_heads_run_on_targets_alone_and_text_logits_are_computed_at_labels_alone(model, documents, pack):
    """And of no logits more than one depth's are there at a time."""
    batch = pack([[documents["draw"], documents["ask"]], [documents["text"]]])
    num_rows, shapes = {}, set()
    for name in ("pixel_head", "semantic_head", "pixel_head.classifiers", "llm.lm_head"):
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: num_rows.update({name: len(inputs[0])})
        )

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    shapes.add(tensor.shape)
            return out

    with Watch():
        loss(model(batch), model.config.loss_weights, batch.num_targets).backward()
    num_labels = int((batch.labels != IGNORE).sum())
    heads = dict.fromkeys(("pixel_head", "semantic_head", "pixel_head.classifiers"), 4)
    assert num_rows == {**heads, "llm.lm_head": num_labels} and num_labels < batch.labels.numel() / 2
    vocab_size, k = model.llm.config.vocab_size, model.visual.codebook_size
    assert {shape[0] for shape in shapes if shape[-1:] == (vocab_size,)} <= {num_labels, 16}  # 16: the weight, turned
    assert (4, k) in shapes and not {(4, 3, k), (3, 4, k), (12, k)} & shapes


def test_a_zero_slice_changes_nothing(model, documents, pack):
    """A batch without an image has the text loss and the LLM gradients of the bare LLM."""
    batch = pack([[documents["text"]]])
    ours = gradients(model, model(batch))
    bare = Qwen2ForCausalLM(model.llm.config)
    bare.load_state_dict(model.llm.state_dict())
    num_labels = (batch.labels != IGNORE).sum()
    (bare(input_ids=batch.input_ids, labels=batch.labels).loss * num_labels).backward()
    for name, parameter in bare.named_parameters():
        torch.testing.assert_close(ours[f"llm.{name}"], parameter.grad, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients(make_model, model, documents, pack):
    batch = pack([[documents["draw"], documents["ask"]]])
    llm, heads = (replace(part, gradient_checkpointing=True) for part in (model.config.llm, model.config.heads))
    checkpointed = make_model(llm=llm, heads=heads)
    assert checkpointed.llm.is_gradient_checkpointing and checkpointed.pixel_head.gradient_checkpointing
    expected, ours = gradients(model, model(batch)), gradients(checkpointed, checkpointed(batch))
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name])


def test_a_cast_leaves_codebooks_and_rotary_frequencies_alone(model, documents, pack):
    frequencies = model.llm.get_decoder().rotary_emb.inv_freq.clone()
    codebook = model.codebooks.pixel.clone()
    for cast in (model.bfloat16, model.half, lambda: model.to(torch.bfloat16)):
        cast()
        assert torch.equal(model.codebooks.pixel, codebook)
        assert torch.equal(model.llm.get_decoder().rotary_emb.inv_freq, frequencies)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(model(pack([[documents["draw"]]])).pixel_loss).all()
    assert model.to("meta").codebooks.pixel.is_meta


def test_codebooks_are_neither_parameters_nor_saved(model):
    assert not any("codebooks" in name for name, _ in model.named_parameters())
    assert not any("codebooks" in name for name in model.state_dict())


@pytest.mark.parametrize("num_books", [1, 3])
def test_code_vectors_with_shared_and_separate_codebooks(make_model, num_books):
    codebooks = make_model(num_books=num_books).codebooks
    codes = torch.randint(8, (2, 4, 3), generator=torch.Generator().manual_seed(0))
    for branch in ("pixel", "semantic"):
        book = getattr(codebooks, branch)
        assert book.square().mean().sqrt().item() == pytest.approx(1)
        expected = torch.stack([book[d % num_books][codes[..., d]] for d in range(3)], dim=-2)
        assert torch.equal(codebooks.vectors(branch, codes), expected)
        assert torch.equal(codebooks.vectors_at(branch, codes[..., 2], 2), expected[..., 2, :])
    assert torch.equal(codebooks.sums(DualCodes(codes, codes)).semantic, expected.sum(dim=-2))


@pytest.mark.parametrize(("visual_input", "pixel", "semantic"), [("both", 1, 1), ("pixel", 1, 0), ("semantic", 0, 1)])
def test_visual_input_says_what_the_llm_reads(make_model, documents, pack, visual_input, pixel, semantic):
    model, batch = make_model(visual_input=visual_input), pack([[documents["ask"]]])
    before = model(batch).text_loss
    assert (model(replace(batch, pixel=(batch.pixel + 1) % 8)).text_loss != before) == bool(pixel)
    assert (model(replace(batch, semantic=(batch.semantic + 1) % 8)).text_loss != before) == bool(semantic)


def test_codebooks_of_another_shape_are_refused(make_model):
    with pytest.raises(ValueError, match="pixel codebook has shape"):
        make_model(num_books=2)


def test_codebooks_are_left_as_they_were(vocabulary, model):
    books = Codebooks(torch.full((1, 8, 4), 5.0), torch.full((1, 8, 4), 5.0))
    other = UnifiedModel(model.config, model.visual, len(vocabulary), books)
    assert (books.pixel == 5).all() and (other.codebooks.pixel == 1).all()
