"""`dualtoken evaluate`: official folders → questions → answers → official submission files → scores.

    BENCHMARKS/{split}/images/  vqav2/  mme/  pope/  mmbench/         what is read (python -m data.emoji_benchmarks)
    OUT/vqav2/  mme/  pope/  mmbench/                                 submissions, each with its `score.json`
    OUT/scores.json                                                   every benchmark's rows
    OUT/examples.json, OUT/examples/*.png                             answers right and wrong, with their pictures

Scores are read from the files that were written, by the same scorers as `dualtoken score`. Beside the model's row stand
`chance` (a uniform random choice; for free text, the best constant), `constant` (the best answer given to everything),
`ceiling` (the reference answers themselves) and, on request, `blind` (the model without the picture).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.baselines import baselines, yes_no_accuracy
from eval.benchmark import Answered, Benchmark, Question, Respond
from eval.benchmark_mmbench import MMBench
from eval.benchmark_mme import MME
from eval.benchmark_pope import POPE
from eval.benchmark_vqav2 import VQAv2
from eval.examples import write_examples
from eval.files import write_json

if TYPE_CHECKING:
    from data.images import ImageTransform
    from mllm.pretrained import Unified

BENCHMARKS: dict[str, type[Benchmark]] = {kind.name: kind for kind in (VQAv2, MME, POPE, MMBench)}
_LONG_LISTS = ("per_question",)


def evaluate(
    unified: "Unified",
    benchmark_dir: str | Path,
    split: str,
    out_dir: str | Path,
    tasks: Sequence[str] = tuple(BENCHMARKS),
    batch_size: int = 32,
    limit: int | None = None,
    blind: bool = False,
    max_new_tokens: int | None = None,
    transform: "ImageTransform | None" = None,
) -> dict[str, Any]:
    """Runs the benchmarks `tasks` of one split and returns what OUT/scores.json holds (see `run_benchmarks`).

    `limit` is for a smoke run: about so many questions of each benchmark. Without `max_new_tokens` each benchmark has
    its own, without `transform` the middle square of a picture is scaled to what the tokenizer takes.
    """
    from eval.responder import Responder

    benchmarks = open_benchmarks(benchmark_dir, split, tasks)
    respond = Responder(unified, batch_size, transform)
    respond_blind = Responder(unified, batch_size, transform, blind=True) if blind else None
    return run_benchmarks(benchmarks, respond, Path(out_dir), limit, max_new_tokens, respond_blind)


def open_benchmarks(benchmark_dir: str | Path, split: str, tasks: Sequence[str]) -> list[Benchmark]:
    folder = Path(benchmark_dir) / split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: there is no split {split!r} in {benchmark_dir}")
    unknown = [task for task in tasks if task not in BENCHMARKS]
    if unknown or not tasks:
        raise ValueError(
            f"unknown benchmark {', '.join(unknown) or '(none given)'}: choose from {', '.join(BENCHMARKS)}"
        )
    return [BENCHMARKS[task](folder, split) for task in tasks]


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    respond: Respond,
    out_dir: Path,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    respond_blind: Respond | None = None,
) -> dict[str, Any]:
    """Answers, submits, scores, and writes scores.json and the examples; returns what scores.json holds.

    `tasks` maps a benchmark to `num_questions`, `partial`, `max_new_tokens`, `seconds`, `headline` (the name of its
    most important figure) and the rows `model`, `chance`, `constant`, `ceiling` and perhaps `blind`, each with at least
    that figure. Beside it stand `split`, `partial`, `limit`, and `yes_no_accuracy` over all yes/no questions.
    """
    for name, value in (("limit", limit), ("max_new_tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    tasks: dict[str, dict[str, Any]] = {}
    answered: list[Answered] = []
    for benchmark, everything in [(benchmark, benchmark.questions()) for benchmark in benchmarks]:
        questions = take(everything, limit)
        partial = len(questions) < len(everything)
        length = max_new_tokens or benchmark.max_new_tokens
        started = time.monotonic()
        predictions = respond(questions, length)
        figures = tasks[benchmark.name] = {
            "num_questions": len(questions),
            "partial": partial,
            "max_new_tokens": length,
            "seconds": time.monotonic() - started,
            "headline": benchmark.headlines[0],
            "model": submit(benchmark, questions, predictions, out_dir / benchmark.name, partial),
        }
        if not has_public_answers(questions):
            continue
        figures.update(baselines(benchmark, questions))
        if respond_blind:
            guesses = respond_blind(questions, length)
            figures["blind"] = submit(benchmark, questions, guesses, out_dir / "blind" / benchmark.name, partial)
        answered += [Answered(benchmark, *pair) for pair in zip(questions, predictions, strict=True)]
    result = {
        "split": benchmarks[0].split,
        "partial": any(figures["partial"] for figures in tasks.values()),
        "limit": limit,
        "tasks": tasks,
        **yes_no_accuracy(answered),
    }
    write_json(out_dir / "scores.json", result)
    write_examples(answered, out_dir)
    return result


def take(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """About `limit` questions, evenly spread, in whole groups; all of them without a limit."""
    if limit is None or limit >= len(questions):
        return list(questions)
    groups: dict[Any, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    num_groups = max(1, round(len(groups) * limit / len(questions)))
    chosen = list(groups.values())
    return [question for i in range(num_groups) for question in chosen[i * len(chosen) // num_groups]]


def submit(
    benchmark: Benchmark, questions: Sequence[Question], predictions: Sequence[str], out: Path, partial: bool
) -> dict[str, Any]:
    """Writes the submission and, where the answers are public, its score; returns the figures, the long lists aside."""
    out.mkdir(parents=True, exist_ok=True)
    benchmark.write(questions, predictions, out)
    if not has_public_answers(questions):
        return {"not_scored": f"{benchmark.split} has no public answers: submit the files in {out}"}
    result = {**benchmark.score(questions, out), "partial": partial}
    write_json(out / "score.json", result)
    return {name: value for name, value in result.items() if name not in _LONG_LISTS}


def has_public_answers(questions: Sequence[Question]) -> bool:
    return any(question.reference for question in questions)
