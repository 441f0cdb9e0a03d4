"""A pipeline: several commands run one after the other as one, from YAML; `make demo` is one (configs/tiny/demo.yaml).

    out: runs/demo                              # ${out} in a command is replaced by this
    stages:
      - name: tokenizer
        command: dualtoken train-tokenizer configs/tiny/tokenizer.yaml out=${out}/tokenizer

Each stage is a process of its own, as if a person had typed it, with its output live on the terminal. OUT/pipeline.yaml
keeps the resolved config, OUT/stages.json what finished: the same pipeline started again goes on with the first stage
that has not finished, or whose command, or a YAML file named in it, has changed since. Those after it run again too,
for they may have read its output.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from train.config import load_config, save_config
from train.machine import describe_machine, memory_gb
from train.run import write_atomically


@dataclass(frozen=True)
class StageConfig:
    name: str = ""
    command: str = ""


@dataclass(frozen=True)
class PipelineConfig:
    out: str = "runs/pipeline"
    stages: list[StageConfig] = field(default_factory=list)


@dataclass(frozen=True)
class StageRecord:
    """What stages.json keeps of a stage; the memory is that of its whole tree of processes, the configs are hashes."""

    name: str
    command: list[str]
    exit_code: int
    seconds: float
    peak_memory_gb: float
    configs: dict[str, str] | None = None  # of the YAML files in the command; null: recorded before they were kept


def load_pipeline(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> PipelineConfig:
    """Reads and checks a pipeline file. Raises ValueError where a stage has no name, no command, or another's name."""
    config = load_config(PipelineConfig, path, overrides)
    names = [stage.name for stage in config.stages]
    if not names:
        raise ValueError(f"{path}: stages is empty; list at least one `name` with its `command`")
    for number, stage in enumerate(config.stages, start=1):
        if not stage.name or not stage.command:
            raise ValueError(f"{path}: stage {number} needs both a `name` and a `command`")
        if names.count(stage.name) > 1:
            raise ValueError(f"{path}: two stages are called {stage.name!r}; names must differ")
        if not _arguments(stage.command):
            raise ValueError(f"{path}: the command of stage {stage.name!r} is empty")
    return config


def run_pipeline(config: PipelineConfig) -> list[StageRecord]:
    """Runs what has not finished yet. Raises ValueError at the first stage that fails, after recording it."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, out / "pipeline.yaml")
    finished = _finished_stages(out / "stages.json", config)
    records = list(finished)
    for number, stage in enumerate(config.stages, start=1):
        title = f"[{number}/{len(config.stages)}] {stage.name}"
        if number <= len(finished):
            print(f"{title}: finished before, in {_duration(finished[number - 1].seconds)}", flush=True)
            continue
        arguments = _arguments(stage.command)
        print(f"\n{title}: {shlex.join(arguments)}", flush=True)
        record = _run_stage(stage.name, arguments)
        records.append(record)
        _save(out / "stages.json", records)
        if record.exit_code != 0:
            raise ValueError(
                f"stage {stage.name!r} failed with exit code {record.exit_code} after {_duration(record.seconds)}; "
                "its message stands above, and the same command continues with this stage"
            )
        print(f"{title}: done in {_duration(record.seconds)}, {record.peak_memory_gb:.1f} GB at most", flush=True)
    if len(finished) < len(records) and ["dualtoken", "report", config.out] in [record.command for record in records]:
        from train.report import write_report

        write_report(out)  # once more, for the report could not know its own time
    total, peak = sum(record.seconds for record in records), max(record.peak_memory_gb for record in records)
    print(
        f"\nAll {len(records)} stages are done: {_duration(total)} in all, {peak:.1f} GB of memory at most.", flush=True
    )
    return records


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _run_stage(name: str, arguments: list[str]) -> StageRecord:
    started, peak, configs = time.monotonic(), 0.0, _config_hashes(arguments)
    try:
        process = subprocess.Popen(_executable(arguments))
    except OSError as error:
        raise ValueError(f"stage {name!r} cannot start: {error}") from error
    previous = signal.signal(signal.SIGTERM, _leave)  # until the stage has ended: alone, it would go on beside the next
    try:
        while process.poll() is None:
            peak = max(peak, memory_gb(process.pid))
            try:
                process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:  # Ctrl-C reaches the stage as well; leave no orphan behind if it does not heed it
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    seconds = round(time.monotonic() - started, 1)
    return StageRecord(name, arguments, process.returncode, seconds, round(peak, 2), configs)


def _arguments(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command {command!r} cannot be split into words: {error}") from error


def _executable(arguments: list[str]) -> list[str]:
    """`dualtoken` and `python` are the ones of this environment, whatever the PATH holds."""
    substitutes = {"dualtoken": [sys.executable, "-m", "dualtoken"], "python": [sys.executable]}
    return substitutes.get(arguments[0], arguments[:1]) + arguments[1:]


def _config_hashes(arguments: list[str]) -> dict[str, str]:
    """Of the YAML files that a command names, alone or as key=FILE."""
    paths = [word.rpartition("=")[2] for word in arguments if word.endswith(".yaml")]
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if Path(path).is_file()}


def _finished_stages(path: Path, config: PipelineConfig) -> list[StageRecord]:
    """The longest run of stages from the first on that finished well with the very command and configs of now."""
    if not path.exists():
        return []
    try:
        records = [StageRecord(**entry) for entry in json.loads(path.read_text())["stages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start over") from error
    finished = []
    for stage, record in zip(config.stages, records, strict=False):
        if reason := _reason_to_repeat(stage, record):
            print(f"{stage.name} and what follows runs again: {reason}", flush=True)
            break
        finished.append(record)
    return finished


def _reason_to_repeat(stage: StageConfig, record: StageRecord) -> str | None:
    if (record.name, record.command) != (stage.name, _arguments(stage.command)):
        return "its command is another one"
    if record.exit_code != 0:
        return f"it ended with exit code {record.exit_code}"
    if record.configs is None:
        return "an earlier version ran it, which did not keep what its config held"
    now = _config_hashes(record.command)
    changed = [name for name in {**record.configs, **now} if record.configs.get(name) != now.get(name)]
    return f"{', '.join(changed)} has changed" if changed else None


def _save(path: Path, records: list[StageRecord]) -> None:
    document = {
        "machine": describe_machine(),
        "seconds": round(sum(record.seconds for record in records), 1),
        "peak_memory_gb": max(record.peak_memory_gb for record in records),
        "stages": [asdict(record) for record in records],
    }
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
