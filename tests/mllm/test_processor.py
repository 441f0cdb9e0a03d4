"""What the processor gives is what training documents hold: the same ids, the same pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from data.documents import ImageRef, Turn, caption_document, conversation_document, drawing_document
from data.images import ImageTransform
from data.vocabulary import CAPTION_REQUEST
from mllm.processor import DualTokenProcessor

N = 4


class Store:
    num_patches = N


IMAGE = ImageRef(Store(), 0)  # type: ignore[arg-type]


@pytest.fixture
def processor(vocabulary) -> DualTokenProcessor:
    return DualTokenProcessor(vocabulary.tokenizer, 8, "center", N)


@pytest.fixture
def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    return Image.fromarray(values)


def user(*parts) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def shown(picture) -> dict:
    return {"type": "image", "image": picture}


def prompt_of(document) -> list[int]:
    """A training document up to the first token that is learned."""
    learned = (document.labels != -100) | document.target_mask
    return document.input_ids[: int(learned.nonzero()[0])].tolist()


def test_prompts_are_those_of_training(processor, vocabulary, picture):
    """Captions, drawings, and conversations of several turns with the picture before or behind the question."""
    asked = processor.apply_chat_template([user(shown(picture), CAPTION_REQUEST)])
    assert asked["input_ids"].tolist() == [prompt_of(caption_document(vocabulary, IMAGE, "red apple", ""))]
    drawing = prompt_of(drawing_document(vocabulary, IMAGE, "a red apple", ""))
    assert processor.apply_chat_template([user("Draw: a red apple")])["input_ids"].tolist() == [drawing]

    question = {"role": "user", "content": "And now?"}
    talk = [{"role": "system", "content": "Be kind."}, user("What is this? ", shown(picture)),
            {"role": "assistant", "content": "A hand."}, question]  # fmt: skip
    turns = [Turn("system", ["Be kind."]), Turn("user", [IMAGE, "\nWhat is this?"]), Turn("assistant", ["A hand."]),
             Turn("user", ["And now?"]), Turn("assistant", [""])]  # fmt: skip
    whole = conversation_document(vocabulary, turns, "").input_ids.tolist()
    assert processor.apply_chat_template(talk)["input_ids"].tolist() == [whole[:-1]]  # but the last turn's end
    short = processor.apply_chat_template(talk, add_generation_prompt=False)["input_ids"].tolist()[0]
    assert short + vocabulary.assistant_start() == whole[:-1]


def test_a_question_beside_its_picture_is_the_conversation_of_one_turn(processor, picture):
    one = processor(images=picture, text=" What is this?")
    other = processor.apply_chat_template([user(shown(picture), "What is this?")])
    assert torch.equal(one["input_ids"], other["input_ids"]) and torch.equal(one["pixel_values"], other["pixel_values"])


def test_pixels_are_those_of_training_whatever_holds_the_picture(processor, picture, tmp_path):
    picture.save(tmp_path / "picture.png")
    data = io.BytesIO()
    picture.save(data, "png")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = ImageTransform(8)(picture)[None]
    for source in (picture, tmp_path / "picture.png", str(tmp_path / "picture.png"), data.getvalue(), array,
                   array / 255, tensor, tensor.float() / 255):  # fmt: skip
        assert torch.equal(processor(images=source)["pixel_values"], expected)
    grey = np.asarray(picture.convert("L"))
    expected = ImageTransform(8)(picture.convert("L").convert("RGB"))[None]
    for source in (grey, grey[..., None], torch.from_numpy(grey.copy())[None]):
        assert torch.equal(processor(images=source)["pixel_values"], expected)


def test_a_batch_is_padded_on_the_left(processor, vocabulary, picture):
    conversations = [[user("Hi")], [user(shown(picture), "Which of these?", shown(picture))]]
    batch = processor.apply_chat_template(conversations)
    alone = [processor.apply_chat_template(messages)["input_ids"][0].tolist() for messages in conversations]
    for ids, mask, expected in zip(batch["input_ids"], batch["attention_mask"], alone, strict=True):
        assert ids[mask.bool()].tolist() == expected and mask.diff().ge(0).all()
    assert (batch["input_ids"] == vocabulary.image_pad).sum() == 2 * N and len(batch["pixel_values"]) == 2
    assert "pixel_values" not in processor.apply_chat_template(conversations[0])


@pytest.mark.parametrize("typed", ["<|im_end|>", "<|image_pad|>", "<|vision_start|>x<|vision_end|>", "<|endoftext|>"])
def test_typed_delimiters_are_text(processor, vocabulary, typed):
    ids = processor.apply_chat_template([user(f"a {typed} b")])["input_ids"][0].tolist()
    plain = processor.apply_chat_template([user("a b")])["input_ids"][0].tolist()
    control = {vocabulary.im_start, vocabulary.im_end, vocabulary.image_pad, vocabulary.vision_start,
               vocabulary.vision_end, vocabulary.endoftext}  # fmt: skip
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    assert typed in vocabulary.decode(ids, skip_special=False)


def test_saved_and_read(processor, picture, tmp_path):
    processor.save_pretrained(tmp_path)
    again = DualTokenProcessor.from_pretrained(tmp_path)
    for one, other in zip(processor(picture, "What?").values(), again(picture, "What?").values(), strict=True):
        assert torch.equal(one, other)
    assert repr(again) == repr(processor)
    with pytest.raises(FileNotFoundError, match="no exported model"):
        DualTokenProcessor.from_pretrained(tmp_path / "nowhere")


def test_decoding_leaves_control_tokens_out(processor, vocabulary):
    ids = torch.tensor([[*vocabulary.encode("A hand."), vocabulary.im_end, vocabulary.endoftext]])
    assert processor.batch_decode(ids) == ["A hand."]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"not a picture", "cannot be read as an image"),
        ("nowhere.png", "no image nowhere.png"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) is no picture"),
        (torch.zeros(5, 4, 3), r"shape \(5, 4, 3\) is no picture"),
        (np.full((4, 4), 2.0), r"must lie in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"must lie in \[0, 1\]"),
        (np.zeros((4, 4), np.int64), "int64 is no picture"),
        (np.zeros((0, 4, 3), np.uint8), "is no picture"),
        (7, "int is no picture"),
    ],
)
def test_broken_pictures_are_named(processor, source, message):
    for call in (lambda: processor(images=source), lambda: processor.apply_chat_template([user(shown(source))])):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            call()


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "nothing to read"),
        ([{"role": "tool", "content": "x"}], "role 'tool'"),
        ([{"role": "user"}], "content of a message is a NoneType"),
        ([user({"type": "video", "video": "x"})], "part of a message cannot be read"),
        ([user({"type": "image"})], "part of a message cannot be read"),
    ],
)
def test_broken_messages_are_named(processor, messages, message):
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(messages)


def test_what_cannot_be_asked_for_is_refused(processor):
    for options in ({"tokenize": False}, {"return_tensors": "np"}, {"chat_template": "x"}):
        with pytest.raises(ValueError, match="is not an option"):
            processor.apply_chat_template([user("Hi")], **options)
    with pytest.raises(ValueError, match="2 texts but 1 images"):
        processor(images=[None], text=["a", "b"])
