"""Two processes of which one ends: the other ends as well, and the cause is said once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = "import sys; from train.launch import launch; launch('tests.train.one_rank_dies', sys.argv[1:], 2)"


def launch(config: Path, way: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LAUNCH, str(config), f"way={way}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("killed", "dualtoken: error: process 1 of 2 was ended by SIGKILL"),
        ("broken", "dualtoken: error: process 1 of 2 ended with exit code 1, see above"),
    ],
)
def test_one_process_ends_all_and_the_cause_is_said_once(tmp_path: Path, way, expected):
    config = tmp_path / "config.yaml"
    config.write_text("way: ''\n")
    ended = launch(config, way)
    assert ended.returncode == 1
    assert ended.stderr.count(expected) == 1
    assert ended.stderr.count("Traceback") == (1 if way == "broken" else 0), ended.stderr
    assert ended.stderr.count("RuntimeError: a bug of ours") == (1 if way == "broken" else 0)
