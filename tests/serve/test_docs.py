"""The examples of docs/inference.md, run as they stand against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "inference.md"
SERVER = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    section = PAGE.read_text().split("## 6. HTTP server")[1]
    return [
        code
        for code in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
        if SERVER in code or "apple" in code
    ]


def run(code: str, folder: Path, url: str, *command: str) -> str:
    code = code.replace(SERVER, url)
    result = subprocess.run([*command, code], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_curl_examples(make_live, tmp_path):
    live = make_live()
    draw, ask, stream, state = blocks("bash")
    run(draw, tmp_path, live.url, "bash", "-euc")
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["apple-0.png", "apple-1.png"]
    assert '"finish_reason":' in run(ask, tmp_path, live.url, "bash", "-euc")
    assert run(stream, tmp_path, live.url, "bash", "-euc").endswith("data: [DONE]\n\n")
    shown = run(state, tmp_path, live.url, "bash", "-euc")
    assert all(part in shown for part in ('{"status":"ok"}', '"id":"dualtoken"', "dualtoken_images_total 2.0"))


def test_openais_own_client(make_live, tmp_path):
    pytest.importorskip("openai")
    (code,) = blocks("python")
    assert int(run(code, tmp_path, make_live().url, sys.executable, "-c").split()[0]) > 100
