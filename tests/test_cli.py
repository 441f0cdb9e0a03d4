"""The command line: quick help, overrides, and one sentence for every mistake."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import dualtoken
from dualtoken import COMMANDS

ROOT = Path(dualtoken.__file__).parent


def run_cli(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dualtoken", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def assert_one_sentence(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("dualtoken: error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error


def test_help_imports_nothing_heavy():
    code = (
        "import sys, dualtoken\n"
        "try: dualtoken.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'matplotlib', 'omegaconf', 'deepspeed'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for name, command in COMMANDS.items():
        assert name in result.stdout and command.purpose in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_teaches(name, capsys):
    with pytest.raises(SystemExit) as stop:
        dualtoken.main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith(f"usage: dualtoken {name}")
    assert all(text in shown for text in (COMMANDS[name].purpose, COMMANDS[name].reads, COMMANDS[name].writes))
    assert f"dualtoken {name}" in COMMANDS[name].example


@pytest.mark.parametrize(
    "words", [["train", "a.yaml", "x=1", "y=2", "--nproc", "2"], ["train", "a.yaml", "--nproc", "2", "x=1", "y=2"]]
)
def test_overrides_stand_before_or_after_options(words):
    args = dualtoken.parse(words)
    assert (args.config, args.overrides, args.nproc) == ("a.yaml", ["x=1", "y=2"], 2)


@pytest.mark.parametrize(
    "words", [["trian"], [], ["train"], ["train", "a.yaml", "--nprocs", "2"], ["score"], ["report", "a", "b=1"]]
)
def test_wrong_words_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        dualtoken.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "error: " in error and error.count("\n") == 1


@pytest.mark.parametrize("name", [n for n in COMMANDS if f"{n} configs/" in COMMANDS[n].example])
def test_missing_config(name, capsys):
    assert dualtoken.main([name, "nowhere.yaml"]) == 2
    assert_one_sentence(capsys, "nowhere.yaml")


def test_unknown_key_names_the_nearest(tmp_path, capsys):
    config = tmp_path / "tower.yaml"
    config.write_text("loop: {stepz: 3}\n")
    assert dualtoken.main(["train-tower", str(config)]) == 2
    assert_one_sentence(capsys, "stepz", "'steps'")


def test_invalid_pipeline(tmp_path, capsys):
    config = tmp_path / "pipeline.yaml"
    config.write_text("stages: [{name: one}]\n")
    assert dualtoken.main(["run", str(config)]) == 2
    assert_one_sentence(capsys, "pipeline.yaml", "command")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["generate", "  "], "empty"),
        (["generate", "a red apple", "--num", "0"], "--num 0"),
        (["generate", "a red apple", "--cfg", "-1"], "cfg"),
        (["generate", "a red apple", "--model", "nowhere"], "nowhere"),
        (["chat", ""], "empty"),
        (["chat", "What?", "--image", "nowhere.png"], "nowhere.png"),
        (["chat", "What?", "--model", "nowhere"], "nowhere"),
        (["reconstruct", "nowhere.png", "--tokenizer", "no-tokenizer"], "no-tokenizer"),
        (["evaluate", "--benchmarks", "nowhere", "--split", "s", "--out", "out"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["train", "pyproject.toml", "--nproc", "0"], "--nproc 0"),
        (["chat", "What?", "--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["train-tower", "configs/tiny/tower.yaml", "data.batch_size=0"], "data.batch_size=0"),
        (["train-tower", "configs/tiny/tower.yaml", "optimizer.betas=[0.9]"], "optimizer.betas=[0.9] must be two"),
        (["train-tower", "configs/tiny/tower.yaml", "optimizer.learning_rate=-1"], "learning_rate=-1.0 must be"),
        (["pretokenize", "configs/tiny/pretokenize.yaml", "batch_size=0"], "batch_size=0"),
        (["pretokenize", "configs/tiny/pretokenize.yaml", "--nproc", "0"], "--nproc 0"),
        (["eval-generation", "configs/tiny/generation.yaml", "num_prompts=0"], "num_prompts=0"),
        (["info", "configs/tiny/pretrain.yaml", "optimizer.heads_learning_rate=-2"], "learning_rate=-2.0 must be"),
        (["info", "configs/tiny/pretrain.yaml", "model.llm.num_attention_heads=5"], "num_attention_heads=5"),
        (["info", "configs/tiny/pretrain.yaml", "model.llm.num_key_value_heads=4"], "num_key_value_heads=4"),
    ],
)
def test_mistakes_are_one_sentence(words, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert dualtoken.main(words) == 2
    assert_one_sentence(capsys, expected)


def test_a_file_where_a_folder_belongs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").touch()
    assert dualtoken.main(["run", "configs/tiny/demo.yaml", f"out={tmp_path}/file"]) == 2
    assert_one_sentence(capsys, f"cannot use {tmp_path}/file: file exists")


def test_broken_image(tmp_path, capsys):
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    assert dualtoken.main(["chat", "What is this?", "--image", str(broken)]) == 2
    assert_one_sentence(capsys, "broken.png")


def test_whole_process_says_one_sentence_and_debug_shows_the_traceback(tmp_path):
    quiet = run_cli("report", "nowhere", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout) == (2, "") and quiet.stderr.startswith(
        "dualtoken: error: run folder nowhere"
    )
    debug = run_cli("report", "nowhere", cwd=tmp_path, DUALTOKEN_DEBUG="1")
    assert debug.returncode == 1 and "Traceback" in debug.stderr and "FileNotFoundError" in debug.stderr


def test_public_names():
    from mllm.model import UnifiedModel
    from tokenizer import DualTokenizer

    assert dualtoken.DualTokenizer is DualTokenizer
    assert dualtoken.UnifiedModel is UnifiedModel
    assert callable(dualtoken.load_unified)
    with pytest.raises(AttributeError, match="Nothing"):
        dualtoken.Nothing  # noqa: B018
