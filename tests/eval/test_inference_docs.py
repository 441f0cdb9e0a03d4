"""The commands and examples of docs/inference.md, but for Python (test_python_docs.py) and the server (tests/serve),
run in their order as they stand."""

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


@pytest.mark.parametrize(
    ("section", "num_blocks"),
    [("A minute after installing", 1), ("Sampling", 3), ("Command line", 7), ("Web demo", 1)],
)
def test_section(section, num_blocks, home, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr("serve.demo.run", lambda args: shown.append(args.model))
    monkeypatch.setattr("sys.stdin", io.StringIO("/quit\n"))
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
            commands = [shlex.split(line, comments=True) for line in content.splitlines()]
            for command, *arguments in commands:
                assert command == "pip" or dualtoken.main(arguments) == 0
    assert len(blocks) == num_blocks and len(shown) == ("\ndualtoken demo" in text)
    if section == "Command line":
        pictures = {path.name for path in (home / "runs/apples").iterdir()}
        assert pictures == {*(f"a-red-apple-3d-style-{seed}.png" for seed in (0, 7, 8, 9, 10)), "sheet.png"}
        assert Image.open("runs/chat/picture-0.png").text["prompt"] == "a blue apple, 3d style"
