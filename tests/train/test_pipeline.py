"""Pipelines: order, records, resuming, failing; and the launcher of several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from train.launch import launch
from train.machine import memory_gb
from train.pipeline import load_pipeline, run_pipeline


@pytest.fixture
def write(tmp_path):
    """Writes a pipeline whose stages append their names to a file; returns its path."""

    def write_pipeline(*stages: tuple[str, str]) -> str:
        path = tmp_path / "pipeline.yaml"
        document = {"out": str(tmp_path / "run"), "stages": [{"name": n, "command": c} for n, c in stages]}
        path.write_text(json.dumps(document))  # JSON is YAML
        return str(path)

    return write_pipeline


def append(word: str) -> str:
    return f"python -c \"open('${{out}}/trace', 'a').write('{word} ')\""


def trace(tmp_path) -> list[str]:
    return (tmp_path / "run" / "trace").read_text().split()


def test_stages_run_in_order_and_are_recorded(write, tmp_path):
    records = run_pipeline(load_pipeline(write(("one", append("a")), ("two", append("b")))))
    assert trace(tmp_path) == ["a", "b"]
    assert [(r.name, r.exit_code) for r in records] == [("one", 0), ("two", 0)]
    saved = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert [stage["name"] for stage in saved["stages"]] == ["one", "two"]
    assert saved["seconds"] == pytest.approx(sum(stage["seconds"] for stage in saved["stages"]))
    assert saved["machine"]["cores"] >= 1


def test_finished_stages_are_skipped(write, tmp_path):
    path = write(("one", append("a")), ("two", append("b")))
    run_pipeline(load_pipeline(path))
    run_pipeline(load_pipeline(path))
    assert trace(tmp_path) == ["a", "b"]


def test_a_changed_stage_and_all_after_it_run_again(write, tmp_path):
    run_pipeline(load_pipeline(write(("one", append("a")), ("two", append("b")), ("three", append("c")))))
    run_pipeline(load_pipeline(write(("one", append("a")), ("two", append("B")), ("three", append("c")))))
    assert trace(tmp_path) == ["a", "b", "c", "B", "c"]


def test_a_stage_runs_again_when_its_config_has_changed(write, tmp_path, capsys):
    config, record = tmp_path / "stage.yaml", tmp_path / "run" / "stages.json"
    reading = f"{append('b')} config={config}"
    path = write(("one", append("a")), ("two", reading), ("three", append("c")))
    for content, expected in (("steps: 1", "a b c"), ("steps: 2", "a b c b c"), ("steps: 2", "a b c b c")):
        config.write_text(content)
        run_pipeline(load_pipeline(path))
        assert trace(tmp_path) == expected.split()
    assert f"two and what follows runs again: {config} has changed" in capsys.readouterr().out
    document = json.loads(record.read_text())
    for stage in document["stages"]:
        del stage["configs"]  # as before they were kept
    record.write_text(json.dumps(document))
    run_pipeline(load_pipeline(path))
    assert trace(tmp_path) == ["a", "b", "c", "b", "c", "a", "b", "c"]
    assert "one and what follows runs again: an earlier version ran it" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"stages": [{"name": "one", "speed": 1}]}', '{"stages": [7]}'])
def test_a_damaged_record_is_named(write, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stages.json").write_text(content)
    with pytest.raises(ValueError, match=r"run/stages\.json is damaged .*delete it to start over"):
        run_pipeline(load_pipeline(write(("one", append("a")))))


def test_a_failure_stops_and_the_same_command_continues(write, tmp_path):
    mark = "import os, sys; seen = os.path.exists('${out}/seen'); open('${out}/seen', 'w'); sys.exit(0 if seen else 3)"
    fails_once = f'python -c "{mark}"'
    path = write(("one", append("a")), ("two", fails_once), ("three", append("c")))
    with pytest.raises(ValueError, match="stage 'two' failed with exit code 3"):
        run_pipeline(load_pipeline(path))
    assert trace(tmp_path) == ["a"]
    run_pipeline(load_pipeline(path))
    assert trace(tmp_path) == ["a", "c"]


def test_programs_are_those_of_this_environment_and_the_report_knows_its_own_time(write, tmp_path):
    check = f"python -c \"import sys; sys.exit(sys.executable != '{sys.executable}')\""
    records = run_pipeline(load_pipeline(write(("python", check), ("report", "dualtoken report ${out}"))))
    assert [r.exit_code for r in records] == [0, 0]
    seconds = json.loads((tmp_path / "run" / "metrics.json").read_text())["seconds"]
    assert seconds["total"] == pytest.approx(sum(r.seconds for r in records))
    assert [seconds[r.name] for r in records] == [r.seconds for r in records]


def test_the_output_of_stages_is_live(write, capfd):
    run_pipeline(load_pipeline(write(("one", "python -c \"print('from the stage')\""))))
    shown = capfd.readouterr().out
    assert "[1/1] one" in shown and "from the stage" in shown and "All 1 stages are done" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: x\n", "stages is empty"),
        ("stages: [{command: ls}]\n", "stage 1 needs"),
        ("stages: [{name: a, command: ls}, {name: a, command: ls}]\n", "two stages are called 'a'"),
        ("stages: [{name: a, command: 'echo \"'}]\n", "cannot be split"),
        ("stages: [{name: a, comand: ls}]\n", "did you mean 'command'"),
        ("stages: [{name: a, command: 'ls ${nothing}'}]\n", "nothing"),
    ],
)
def test_invalid_pipelines(tmp_path, text, message):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_pipeline(path)


def test_a_command_that_does_not_exist(write):
    with pytest.raises(ValueError, match="stage 'one' cannot start"):
        run_pipeline(load_pipeline(write(("one", "no-such-program --help"))))


def test_memory_counts_child_processes(tmp_path):
    import subprocess

    child = "x = bytearray(200_000_000); print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()  # the child holds its memory now
        assert 0.18 < memory_gb(process.pid) < 0.5
        process.communicate(b"\n")
    assert memory_gb(process.pid) == 0.0


WORKER = """
import os, sys
from pathlib import Path
from train.launch import USER_MISTAKE, is_launched, leave_sentence
assert is_launched()
kind, folder = sys.argv[1:]
if kind == "mistake":
    leave_sentence("the key is wrong")
    sys.exit(USER_MISTAKE)
if kind == "crash":
    sys.exit(7)
Path(folder, os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "launched_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = [p for p in sys.path if p]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    return "launched_worker"


def test_launch_runs_every_rank(worker, tmp_path):
    launch(worker, ["well", str(tmp_path)], 2)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["2", "2"]


def test_launch_raises_the_sentence_of_a_mistake_once(worker, tmp_path):
    with pytest.raises(ValueError, match=r"^the key is wrong$"):
        launch(worker, ["mistake", str(tmp_path)], 2)


def test_launch_reports_other_failures_by_their_exit_code(worker, tmp_path):
    with pytest.raises(SystemExit, match=r"ended with exit code 7"):
        launch(worker, ["crash", str(tmp_path)], 1)


def test_a_pipeline_that_is_told_to_end_ends_its_stage_first(write, tmp_path):
    stage = "python -c \"import os, time; open('${out}/pid', 'w').write(str(os.getpid())); time.sleep(60)\""
    code = f"from train.pipeline import *; run_pipeline(load_pipeline({write(('one', stage))!r}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    pid = tmp_path / "run" / "pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
