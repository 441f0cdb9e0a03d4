"""What a run folder holds, gathered for the report: stages, pictures, scores, times, and the metrics file made of them.

Every figure is read from a file that a stage wrote; what is not there stays absent, and the page says which command
would make it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.run import read_log
from train.score_rows import score_files

STAGES = ("tower", "tokenizer", "tokenizer-eval", "pretrain", "instruct", "generation")
OTHER_CONFIGS = ("codes/*/config.yaml", "eval/*/config.yaml", "pipeline.yaml")
HELD_OUT = ("unseen_style", "unseen_concept")
OFFICIAL = "eval"  # the name of an evaluation that is of no split of ours: RUN/eval itself, or OUT given as the run
_LONG = ("per_question", "per_image")  # of what `dualtoken score` writes: no figures of a run


@dataclass(frozen=True)
class StageData:
    """One stage's run folder (train/run.py)."""

    folder: Path
    config: str
    log: list[dict[str, Any]]
    result: dict[str, Any]
    pictures: list[Path]  # in the order of their names, so the last is the latest


@dataclass(frozen=True)
class Evaluation:
    """OUT of `dualtoken evaluate` for one split."""

    folder: Path
    scores: dict[str, Any]
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class RunData:
    folder: Path
    stages: dict[str, StageData]
    evaluations: dict[str, Evaluation]
    times: dict[str, Any]  # stages.json of a pipeline, or empty
    is_pipeline: bool
    other_configs: dict[str, str] = field(default_factory=dict)  # of what is no stage above, by the file's place
    scored: dict[str, dict[str, Any]] = field(default_factory=dict)  # RUN/scores/NAME.json of `dualtoken score --json`

    def result(self, stage: str, name: str) -> Any:
        """A part of a stage's result.json, or None."""
        return self.stages[stage].result.get(name) if stage in self.stages else None


def read_run(folder: str | Path) -> RunData:
    """Reads a pipeline's folder, or a single stage's. Raises FileNotFoundError, or ValueError if it is neither."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"run folder {folder} does not exist; `dualtoken run` and every training command make one"
        )
    evaluations = {
        path.parent.name if path.parent.parent == folder / OFFICIAL else OFFICIAL: _read_evaluation(path.parent)
        for path in score_files(folder)
    }
    scored = {path.stem: _read_json(path) for path in sorted(folder.glob("scores/*.json"))}
    if (folder / "config.yaml").exists():
        stages = {folder.name: _read_stage(folder)}
        return RunData(folder, stages, evaluations, {}, is_pipeline=False, scored=scored)
    stages = {name: _read_stage(folder / name) for name in STAGES if (folder / name).is_dir()}
    times = _read_json(folder / "stages.json") or {}
    if not (stages or evaluations or times or scored):
        raise ValueError(
            f"{folder} holds no run: neither a config.yaml, nor stages.json, nor any of {', '.join(STAGES)}"
        )
    others = [path for shape in OTHER_CONFIGS for path in sorted(folder.glob(shape))]
    configs = {path.relative_to(folder).as_posix(): path.read_text() for path in others}
    return RunData(folder, stages, evaluations, times, is_pipeline=True, other_configs=configs, scored=scored)


def collect_metrics(run: RunData) -> dict[str, Any]:
    """The content of metrics.json: nested, absent where the run has not measured it."""
    scored = {
        "scores": {split: evaluation.scores["tasks"] for split, evaluation in run.evaluations.items()},
        "scored": {
            name: {key: value for key, value in result.items() if key not in _LONG}
            for name, result in run.scored.items()
        },
    }
    if not run.is_pipeline:
        result = next(iter(run.stages.values())).result
        return {**result, **{name: value for name, value in scored.items() if value}}
    last_trained = [stage for stage in ("pretrain", "instruct") if run.result(stage, "ntp")]
    yes_no = {
        f"{split}_{name}": evaluation.scores[key]
        for split, evaluation in run.evaluations.items()
        for name, key in (("accuracy", "yes_no_accuracy"), ("constant_answer", "yes_no_chance"))
        if evaluation.scores.get(key) is not None
    }
    metrics = {
        **{
            name: run.result("tokenizer-eval", name)
            for name in (
                *("reconstruction", "rfid", "codebook_usage", "codebook_perplexity"),
                *("zero_shot", "retrieval", "flickr8k"),
            )
        },
        "ntp": run.result(last_trained[-1], "ntp") if last_trained else None,
        "generation": run.stages["generation"].result if "generation" in run.stages else None,
        "yes_no": yes_no,
        **scored,
        "parameters": {
            name: stage.result["parameters"] for name, stage in run.stages.items() if "parameters" in stage.result
        },
        "seconds": _seconds(run),
        "peak_memory_gb": run.times.get("peak_memory_gb"),
        "machine": run.times.get("machine"),
    }
    return {name: value for name, value in metrics.items() if value}


def _seconds(run: RunData) -> dict[str, float]:
    if run.times:
        return {"total": run.times["seconds"], **{stage["name"]: stage["seconds"] for stage in run.times["stages"]}}
    seconds = {name: stage.result["seconds"] for name, stage in run.stages.items() if "seconds" in stage.result}
    return {"total": sum(seconds.values()), **seconds} if seconds else {}


def _read_stage(folder: Path) -> StageData:
    config = folder / "config.yaml"
    return StageData(
        folder=folder,
        config=config.read_text() if config.exists() else "",
        log=read_log(folder / "log.jsonl"),
        result=_read_json(folder / "result.json") or {},
        pictures=sorted(folder.glob("samples/*.png")),
    )


def _read_evaluation(folder: Path) -> Evaluation:
    return Evaluation(folder, _read_json(folder / "scores.json") or {}, _read_json(folder / "examples.json") or [])


def _read_json(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run the stage that wrote it again") from error
