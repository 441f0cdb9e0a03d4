"""The web demo's tabs without a browser: what their functions show, and that mistakes are one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.draw import draw_batch
from heads.sampling import SamplingConfig
from mllm.dialogue import ImagePiece, TextPiece
from serve.demo import build
from serve.engine import Engine
from tokenizer import DualCodes

gr = pytest.importorskip("gradio", reason="the extra `demo` is not installed")


@pytest.fixture
def engine(make_engine) -> Engine:
    return make_engine()


@pytest.fixture
def page(engine) -> Callable[[str], Callable[..., Any]]:
    """The page's functions by name."""
    functions = {block.name: block.fn for block in build(engine, "runs/tiny", "none.tar").fns.values()}
    return functions.__getitem__


@pytest.fixture
def red(tmp_path) -> str:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def drawing(page, prompt: str = "a red apple", num: int = 2, cfg: float = 2.0, top_k: int = 0) -> list[tuple]:
    return list(page("draw")(prompt, num, cfg, 1.0, 5, False, top_k, 1.0))


def test_drawings_come_row_by_row_and_end_as_the_models_own(page, unified):
    first, *previews, last = drawing(page)
    assert first[2] == 5 and "Waiting" in first[1]
    assert [status for _, status, _ in previews] == ["Drawing … 50%"] and "Guidance 2" in last[1]
    assert [label for _, label in last[0]] == ["seed 5", "seed 6"]
    expected = draw_batch(unified, ["a red apple"] * 2, SamplingConfig(cfg=2.0), [5, 6])
    for (shown, _), image in zip(last[0], expected, strict=True):
        assert np.array_equal(np.asarray(shown), np.asarray(image.resize((256, 256), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": " "}, "Say in a few words"),
        ({"prompt": "apple " * 200}, "shorten the prompt"),
        ({"cfg": float("nan")}, "must be a number"),
        ({"cfg": -1.0}, "must be a number"),
        ({"top_k": -1}, "at least 0"),
    ],
)
def test_a_mistake_in_drawing_is_one_sentence(page, changes, said):
    with pytest.raises(gr.Error, match=said):
        drawing(page, **changes)


def test_a_chat_streams_and_remembers(page, red):
    from serve.demo_chat import Conversation

    talk = Conversation()
    *_, (_, talk, shown, note) = page("reply")({"text": "What is this?", "files": [red]}, talk)
    assert note == "" and [message["role"] for message in shown] == ["user", "assistant"]
    assert shown[0]["content"] == [{"path": red}, "What is this?"]
    assert [message.role for message in talk.messages] == ["user", "assistant"]
    image, text = talk.messages[0].segments
    assert text == "\nWhat is this?" and image.pixel.shape == (4, 3)
    *_, (_, talk, shown, _) = page("reply")({"text": "<b>Hello!</b>", "files": []}, talk)
    assert len(shown) == 4 and shown[2]["content"] == ["&lt;b&gt;Hello!&lt;/b&gt;"]
    assert talk.messages[-2].segments == ["<b>Hello!</b>"]


def test_a_picture_in_a_reply_is_shown_once_and_its_previews_are_removed(engine, tmp_path):
    from serve.demo_chat import _Reply

    codes = DualCodes(*torch.zeros(2, 4, 3, dtype=torch.int64))
    half = DualCodes(codes.pixel[:2], codes.semantic[:2])
    reply = _Reply(engine, str(tmp_path))
    for piece in (ImagePiece(half, False), ImagePiece(codes, True), TextPiece("a "), TextPiece("hand")):
        reply.add(piece)
        assert len([part for part in reply.shown["content"] if isinstance(part, dict)]) == 1
    reply.add(ImagePiece(half, False))
    first, text, second = reply.shown["content"]
    assert text == "a hand" and {first["path"], second["path"]} == {str(path) for path in tmp_path.iterdir()}
    assert [type(part) for part in reply.message.segments] == [DualCodes, str]  # the second is not finished


def test_a_long_chat_forgets_its_beginning_and_says_so(page):
    from serve.demo_chat import Conversation

    talk, notes = Conversation(), []
    for _ in range(4):
        *_, (_, talk, shown, note) = page("reply")({"text": "what " * 25, "files": []}, talk)
        notes.append(note)
    assert notes[0] == "" and "do not fit" in notes[-1] and len(shown) == 8 > len(talk.messages)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"text": " ", "files": []}, "Ask something"),
        ({"text": "what " * 200, "files": []}, "leave out"),
        ({"text": "w" * 20_000, "files": []}, "at most"),
        ({"text": "", "files": ["a.png"] * 9}, "at most 8 pictures"),
        ({"text": "", "files": ["no.png"]}, "no.png"),
    ],
)
def test_a_mistake_in_a_chat_is_one_sentence(page, said, error):
    from serve.demo_chat import Conversation

    with pytest.raises(gr.Error, match=error):
        list(page("reply")(said, Conversation()))


def test_shuffled_semantic_codes_leave_the_picture_and_pixel_codes_do_not(page, red, unified):
    codes, original, decoded, semantic_shuffled, semantic_random, _, *maps, whole, semantic, random, pixel = page(
        "look"
    )(red, 1)
    assert codes.pixel.shape == (4, 3) and original.size == decoded.size == (256, 256)
    assert decoded.tobytes() == semantic_shuffled.tobytes()
    assert [each.size for each in maps] == [(256, 256)] * 2
    figures = [text.split("\n\n")[1].split(" dB · feature ") for text in (whole, semantic, random, pixel)]
    assert figures[0][0] == figures[1][0] == figures[2][0] and decoded.tobytes() == semantic_random.tobytes()
    assert figures[0][1] == figures[1][1] == figures[3][1] == "1.00" != figures[2][1]
    deeper = page("maps")(codes, 3)
    assert [each.size for each in deeper] == [(256, 256)] * 2


def test_a_broken_upload_is_one_sentence(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(gr.Error, match=r"broken\.png cannot be read") as raised:
        page("look")(str(tmp_path / "broken.png"), 1)
    assert str(tmp_path) not in str(raised.value)
    assert page("look")(None, 1) == (None,) * 12


def test_a_picture_of_too_many_pixels_is_refused(make_engine, red):
    page = build(make_engine(pixels=100), "runs/tiny", "none.tar")
    (look,) = (block.fn for block in page.fns.values() if block.name == "look")
    with pytest.raises(gr.Error, match=r"red\.png.* 600|600"):
        look(red, 1)
