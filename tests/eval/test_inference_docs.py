"""The examples of docs/inference.md on sampling and on the command line, run in their order as they stand."""

import io
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import dualtoken

TEXT = (Path(__file__).parents[2] / "docs/inference.md").read_text()
BLOCK = re.compile(r"```(\w+)(?: ?(\S*))\n(.*?)```", re.S)


@pytest.fixture
def home(folder, tmp_path, monkeypatch) -> Path:
    """A working folder in which the default model is the tiny one."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/emoji-model").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("section", "num_blocks"), [("Sampling", 3), ("Command line", 7)])
def test_section(section, num_blocks, home, monkeypatch):
    (text,) = re.findall(rf"^## \d\. {section}\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M)
    names: dict[str, object] = {}
    blocks = BLOCK.findall(text)
    for kind, option, content in blocks:
        if kind == "python":
            exec(content, names)
        elif kind == "json":
            Path(option.removeprefix("file=")).write_text(content)
        elif kind == "text":
            monkeypatch.setattr("sys.stdin", io.StringIO(content))
            assert dualtoken.main(["chat", "--max-new-tokens", "4"]) == 0
        else:
            assert kind == "bash"
            for line in content.splitlines():
                assert dualtoken.main(shlex.split(line)[1:]) == 0
    assert len(blocks) == num_blocks
    if section == "Command line":
        pictures = {path.name for path in (home / "runs/apples").iterdir()}
        assert pictures == {*(f"a-red-apple-3d-style-{seed}.png" for seed in (0, 7, 8, 9, 10)), "sheet.png"}
        assert Image.open("runs/chat/picture-0.png").text["prompt"] == "a blue apple, 3d style"
