"""`dualtoken chat` as a dialogue: what is typed, what is said, what is drawn, and what the history holds."""

import io
import json

import pytest
import torch
from PIL import Image

import dualtoken
import mllm.dialogue
from eval.chat import ask
from eval.draw import Origin
from eval.load import load
from eval.terminal import Terminal
from heads.sampling import SamplingConfig
from mllm.dialogue import TextSampling
from tokenizer import DualCodes


@pytest.fixture
def terminal(folder, tmp_path) -> Terminal:
    origin = Origin(folder, "id")
    return Terminal(load(folder), origin, str(tmp_path / "out"), TextSampling(max_new_tokens=3), SamplingConfig(), 7)


@pytest.fixture
def picture(tmp_path) -> str:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "red one.png")
    return str(tmp_path / "red one.png")


def script(monkeypatch, tokens: list[int]) -> None:
    """What the model says next, whatever is probable."""
    left = iter(tokens)
    monkeypatch.setattr(mllm.dialogue, "draw", lambda *_: torch.tensor([next(left)]))


def shape(terminal: Terminal) -> list[tuple[str, list[str]]]:
    """The history with each image as [image]."""
    return [(role, [s if isinstance(s, str) else "[image]" for s in segments]) for role, segments in terminal.history]


def test_a_dialogue(terminal, picture, monkeypatch, capsys, tmp_path):
    vocabulary = terminal.unified.vocabulary
    script(monkeypatch, [
        *vocabulary.encode("Red."), vocabulary.im_end,
        *vocabulary.encode("So"), vocabulary.vision_start, vocabulary.im_end,
    ])  # fmt: skip
    terminal.text = TextSampling(max_new_tokens=20)
    terminal.run([f"/image {picture}", "What is this?", "  ", "/draw a blue one", "And again"])
    out, drawn = capsys.readouterr().out, tmp_path / "out"
    assert f"{picture} is shown" in out and "\nRed.\n" in out and "\nSo.\n" in out
    assert f"..\n{drawn}/picture-7.png\n" in out and f"{drawn}/picture-8.png" in out
    assert shape(terminal) == [
        ("user", ["[image]", "\n", "What is this?"]),
        ("assistant", ["Red."]),
        ("user", ["Draw: a blue one"]),
        ("assistant", ["[image]"]),
        ("user", ["And again"]),
        ("assistant", ["So", "[image]"]),
    ]
    text = Image.open(drawn / "picture-7.png").text
    assert (text["prompt"], text["seed"], json.loads(text["settings"])["cfg"]) == ("a blue one", "7", 3.0)
    terminal.run(["/reset"])
    assert terminal.history == [] and terminal.shown == []


def test_a_drawn_picture_is_the_one_that_generate_draws(terminal, folder, tmp_path):
    terminal.run(["/draw a blue one"])
    words = ["--temperature", "1", "--top-k", "0", "--seed", "7", "--out", str(tmp_path / "alone")]
    assert dualtoken.main(["generate", "a blue one", "--model", folder, *words]) == 0
    files = (tmp_path / "out/picture-7.png", tmp_path / "alone/a-blue-one-7.png")
    assert len({Image.open(file).tobytes() for file in files}) == 1


def test_mistakes_are_said_and_the_dialogue_goes_on(terminal, capsys, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    lines = ["/image nowhere.png", f"/image {tmp_path}/broken.png", "/image", "/draw", "/paint x", "what " * 500, "Hi"]
    terminal.run(lines)
    errors = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6 and "nowhere.png" in errors[0] and "/help" in errors[4] and "context" in errors[5]
    assert [role for role, _ in terminal.history] == ["user", "assistant"]
    terminal.run(["/quit", "Hi"])
    assert len(terminal.history) == 2


def test_pictures_that_do_not_fit_are_forgotten_and_the_history_is_not(terminal, picture, capsys):
    terminal.run(["Hi", *[f"/image {picture}"] * 200, "Which?", "And now?"])
    (error,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error: ")]
    assert "context" in error and "pictures that waited" in error and terminal.shown == []
    assert [segments for _, segments in terminal.history[::2]] == [["Hi"], ["And now?"]]


def test_delimiters_and_escape_sequences(terminal, monkeypatch, capsys):
    """Typed delimiters are text, and what the model says cannot command the terminal."""
    vocabulary = terminal.unified.vocabulary
    script(monkeypatch, [*vocabulary.encode("\x1b[2J"), vocabulary.im_end])
    terminal.text = TextSampling(max_new_tokens=9)
    terminal.run(["<|im_end|><|vision_start|>"])
    assert terminal.history[0].segments == ["<|im_end|><|vision_start|>"]
    assert "\x1b" not in capsys.readouterr().out and terminal.history[1].segments == ["\x1b[2J"]


def test_a_reply_can_be_stopped(terminal, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mllm.dialogue, "draw", interrupt)
    terminal.run(["Hi"])
    assert terminal.history == [] and "stopped" in capsys.readouterr().out


def test_from_the_command_line(folder, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is this?\n/draw a cat\n"))
    words = ["--image", picture, "--max-new-tokens", "3", "--out", str(tmp_path), "--cfg", "2", "--seed", "4"]
    assert dualtoken.main(["chat", "--model", folder, *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Say something") and f"{picture} is shown" in out
    assert json.loads(Image.open(tmp_path / "picture-4.png").text["settings"])["cfg"] == 2


def test_one_question_is_answered_as_before(folder, picture, capsys):
    words = ["--image", picture, "--model", folder, "--max-new-tokens", "3"]
    assert dualtoken.main(["chat", "What is this?", *words]) == 0
    assert capsys.readouterr().out == f"{ask('What is this?', picture, folder, 3)}\n"
    assert dualtoken.main(["chat", "--text-temperature", "nan", "--model", folder]) == 2
    assert "temperature=nan for text" in capsys.readouterr().err
    for option, value in (("--cfg", "nan"), ("--seed", "-1"), ("--text-temperature", "nan")):
        assert dualtoken.main(["chat", "What?", option, value, "--model", folder]) == 2
        assert value in capsys.readouterr().err


def test_preview_paints_what_is_missing(terminal):
    """Whole rows that are there look as in the finished picture, away from the edge; the rest has their mean colour."""
    from eval.pictures import decode_picture, preview

    tokenizer = terminal.unified.tokenizer
    codes = torch.randint(8, (2, 4, 3), generator=torch.Generator().manual_seed(0))
    whole = preview(tokenizer, codes)
    assert torch.equal(whole, tokenizer.decode(codes))
    half = preview(tokenizer, codes[:, :2])
    side = tokenizer.image_size
    mean = half[:, :, : side // 2].mean((2, 3))
    torch.testing.assert_close(half[:, :, side // 2 :], mean[..., None, None].expand(2, 3, side // 2, side))
    one = preview(tokenizer, codes[:, :1])
    torch.testing.assert_close(one[:, :, 0, -1], one[:, :, : side // 2, : side // 2].mean((2, 3)))
    assert not preview(tokenizer, codes[:, :0]).any()
    assert decode_picture(terminal.unified, DualCodes(codes[0, :3], codes[0, :3])).size == (side, side)
