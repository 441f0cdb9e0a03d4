"""The Python examples of docs/inference.md, in order, as they stand: on the shipped model where it is there."""

import re
from pathlib import Path

from PIL import Image

import dualtoken
from tokenizer.hub import SHIPPED
from train.commands import SHIPPED_MODEL

ROOT = Path(dualtoken.__file__).parent
PYTHON = (ROOT / "docs/inference.md").read_text().split("\n## ")[2]


def test_python(folder, tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    shipped = ROOT / SHIPPED_MODEL
    (tmp_path / SHIPPED_MODEL).symlink_to(shipped if shipped.is_dir() else folder)
    monkeypatch.chdir(tmp_path)
    assert PYTHON.startswith("2. Python")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PYTHON, re.S):
        exec(code, names)
    model, pictures = names["model"], names["pictures"]
    size, shape = model.tokenizer.image_size, model.model.visual.shape
    assert [picture.size for picture in [*pictures, *names["reconstructions"]]] == [(size, size)] * 4
    assert len(names["answers"]) == 3 and all(isinstance(answer, str) for answer in names["answers"])
    assert names["reply"] and all(isinstance(part, str | Image.Image) for part in names["reply"])
    assert [tuple(codes.shape[1:]) for codes in names["codes"]] == [shape, shape]
    assert names["features"].shape == (2, model.tokenizer.tower.width)
    again = dualtoken.DualTokenModel.from_pretrained("my-model", dtype="float32")
    assert again.tokenizer.tokenizer_id == model.tokenizer.tokenizer_id


def test_what_is_used_without_a_name():
    assert SHIPPED == SHIPPED_MODEL == dualtoken.parse(["generate", "x"]).model == dualtoken.parse(["chat"]).model
    assert dualtoken.parse(["reconstruct", "x.png"]).tokenizer == f"{SHIPPED_MODEL}/tokenizer"
    for command in ("demo", "serve"):
        assert dualtoken.parse([command]).model == SHIPPED_MODEL


def test_outside_of_a_clone_the_shipped_model_is_missed_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["generate", "an apple"], ["chat", "What?"], ["reconstruct", __file__]):
        assert dualtoken.main(words) == 2
        error = capsys.readouterr().err
        assert "ships with the repository" in error and error.count("\n") == 1
