"""`dualtoken evaluate`: benchmarks on their official files, in any number of processes (paper Tab. 5).

    torchrun --nproc_per_node 8 -m train.evaluate configs/full/evaluate.yaml

Every answer is kept as it is made (eval/answers.py): the same command continues a stopped run, and the first process
writes submissions, scores and manifest (eval/runner.py).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.images import ImageTransform
from eval.benchmark import Benchmark
from eval.load import load
from eval.manifest import hash_model
from eval.runner import BENCHMARKS, evaluate, known, open_benchmarks
from eval.score import format_table
from mllm.pretrained import Unified
from train.config import save_config
from train.distributed import WEEK, World, init_world, leave_world
from train.launch import run_launched
from train.precision import set_matmul_precision
from train.score_rows import headline_figures


@dataclass(frozen=True)
class TaskData:
    """Where the official files of one benchmark are."""

    folder: str = ""
    split: str = ""  # as in the names of the files: val2014, test-dev2015; else a name for the table
    images: str | None = None  # null: the folder's own, or those beside it


@dataclass(frozen=True)
class EvaluateConfig:
    out: str = "runs/demo/eval/unseen_style"
    model: str = "runs/demo/instruct/export"
    tasks: list[str] = field(default_factory=list)  # empty: all whose files are there
    data: dict[str, TaskData] = field(default_factory=dict)  # by task; or, for all tasks, the next two
    benchmarks: str | None = None  # a folder of splits, such as `python -m data.emoji_benchmarks` writes
    split: str | None = None
    batch_size: int = 32
    max_new_tokens: int | None = None  # null: the protocol's, 128, or 1024 for MMBench and MM-Vet
    crop: str | None = None  # of a picture: center, squash or pad; null: as the tokenizer is used elsewhere
    limit: int | None = None  # about so many questions of each benchmark, for a smoke run
    blind: bool = False  # ask a second time with a grey picture: what guessing reaches
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        known([*self.tasks, *self.data] or list(BENCHMARKS))


def main(config: EvaluateConfig) -> None:
    """A wrong folder is known before the model is read."""
    benchmarks = open_all(config)
    set_matmul_precision(config.precision)  # fast; `generate` has exact products, so that a seed decides a picture
    world = init_world(timeout_minutes=WEEK)
    try:
        unified, identity = open_model(config, world)
        result = evaluate(
            unified,
            benchmarks,
            config.out,
            batch_size=config.batch_size,
            limit=config.limit,
            blind=config.blind,
            max_new_tokens=config.max_new_tokens,
            transform=ImageTransform(unified.tokenizer.image_size, config.crop) if config.crop else None,
            made_from={"model": identity, "tokenizer": unified.tokenizer.tokenizer_id, "precision": config.precision},
            ranks=world,
        )
    finally:
        leave_world()
    if world.rank == 0:
        print(format_table([*figures(result), ("written to", f"{config.out}/scores.json")]))


def open_model(config: Any, world: World) -> tuple[Unified, str]:
    """The model that `config.model` names and its hash, on every rank; `config` itself is kept in `config.out`."""
    unified = load(config.model)
    identity = world.gather(hash_model(config.model) if world.rank == 0 else "")[0]
    if world.rank == 0:
        Path(config.out).mkdir(parents=True, exist_ok=True)
        save_config(config, Path(config.out, "config.yaml"))
    return unified, identity


def open_all(config: EvaluateConfig) -> list[Benchmark]:
    """Raises FileNotFoundError or ValueError where the files of a task are not where the config says."""
    tasks = config.tasks or list(config.data) or None
    if tasks is not None and all(task in config.data for task in tasks):
        opened = []
        for task in tasks:
            place = config.data[task]
            if not place.folder or not place.split:
                raise ValueError(f"data.{task} needs both a `folder` and a `split`")
            opened.append(BENCHMARKS[task](place.folder, place.split, place.images))
        return opened
    missing = [task for task in tasks or () if task not in config.data]
    if config.benchmarks is None or config.split is None:
        raise ValueError(
            f"where are the files of {', '.join(missing) or 'the benchmarks'}? Give data.TASK.folder and "
            "data.TASK.split in the config, or --benchmarks DIR and --split NAME"
        )
    here = {each.name: each for each in open_benchmarks(config.benchmarks, config.split, tasks and missing)}
    elsewhere = {
        task: BENCHMARKS[task](place.folder, place.split, place.images)
        for task, place in config.data.items()
        if tasks is None or task in tasks
    }
    return list((here | elsewhere).values())


def figures(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Each benchmark's rows for the terminal; where there is no number, the reason."""
    lines = []
    for name, task in result["tasks"].items():
        mark = f" (partial: {task['num_questions']} questions)" if task["partial"] else ""
        for reason in ("not_graded", "not_scored"):
            if reason in task["model"]:
                lines.append((f"{name}{mark}", reason.replace("_", " ")))
        lines += [
            (f"{name} {row} {task['headline']}{mark}", f"{value:.4g}") for row, value in headline_figures(task).items()
        ]
    return lines


if __name__ == "__main__":
    run_launched(EvaluateConfig, main)
