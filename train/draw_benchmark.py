"""`dualtoken draw-benchmark`: pictures for GenEval, DPG-bench, MJHQ-30K and prompts of your own, in many processes.

    torchrun --nproc_per_node 8 -m train.draw_benchmark configs/full/draw_benchmark.yaml

A picture that is there is not drawn again: the same command continues a stopped run (eval/draw_benchmark.py).
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eval.draw import draw_batch
from eval.draw_benchmark import draw_benchmarks
from eval.prompt_sets import PROMPT_SETS, PromptSet
from heads.sampling import SamplingConfig
from train.distributed import WEEK, init_world, leave_world
from train.evaluate import open_model
from train.launch import run_launched
from train.precision import set_matmul_precision


@dataclass(frozen=True)
class DrawBenchmarkConfig:
    out: str = "runs/demo/drawn"
    model: str = "runs/demo/instruct/export"
    prompts: dict[str, str] = field(default_factory=dict)  # by benchmark: the official file or folder of its prompts
    tasks: list[str] = field(default_factory=list)  # empty: all that have prompts
    num_pictures: int = 1  # of each line of `prompts.prompts`; the benchmarks say it themselves
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    batch_size: int = 16
    limit: int | None = None  # so many prompts of each benchmark, for a smoke run
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("num_pictures", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in (*self.prompts, *self.tasks):
            if name not in PROMPT_SETS:
                raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(PROMPT_SETS)}")


def main(config: DrawBenchmarkConfig) -> None:
    """A wrong prompt file is known before the model is read."""
    prompt_sets = open_all(config)
    set_matmul_precision(config.precision)
    world = init_world(timeout_minutes=WEEK)
    torch.set_num_threads(1)  # on a CPU, sums by more threads round otherwise: its cores are for more processes
    try:
        unified, identity = open_model(config, world)
        result = draw_benchmarks(
            prompt_sets,
            lambda texts, seeds: draw_batch(unified, texts, config.sampling, seeds),
            Path(config.out),
            made_from={
                "model": identity,
                "tokenizer": unified.tokenizer.tokenizer_id,
                "sampling": asdict(config.sampling),
                "precision": config.precision,
            },
            seed=config.seed,
            batch_size=config.batch_size,
            limit=config.limit,
            ranks=world,
        )
    finally:
        leave_world()
    if world.rank == 0:
        print("\n".join([*describe(result), f"written to {config.out}/result.json"]))


def open_all(config: DrawBenchmarkConfig) -> list[PromptSet]:
    """Raises FileNotFoundError or ValueError where prompts are not where the config says, or are not read as such."""
    tasks = config.tasks or list(config.prompts)
    if missing := [task for task in tasks if task not in config.prompts]:
        raise ValueError(f"where are the prompts of {', '.join(missing)}? Give prompts.{missing[0]}=PATH")
    if not tasks:
        raise ValueError(f"nothing to draw: give prompts.NAME=PATH for some of {', '.join(PROMPT_SETS)}")
    opened = [PROMPT_SETS[task](config.prompts[task], config.num_pictures) for task in tasks]
    for prompt_set in opened:
        prompt_set.prompts()
    return opened


def describe(result: dict[str, Any]) -> list[str]:
    """What was drawn, and how to go on, for the terminal."""
    lines = []
    for name, task in result["tasks"].items():
        mark = " (partial)" if task["partial"] else ""
        lines.append(f"{name}{mark}: {task['num_pictures']} pictures of {task['num_prompts']} prompts")
        lines += [f"  warning: {what.replace('_', ' ')}: {count}" for what, count in task["warnings"].items()]
        lines.append(f"  not graded: {task['not_graded']}; next:")
        lines += [f"    {command}" for command in task["next_commands"]]
    return lines


if __name__ == "__main__":
    run_launched(DrawBenchmarkConfig, main)
