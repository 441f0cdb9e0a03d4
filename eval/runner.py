"""`dualtoken evaluate`: official folders → questions → answers → official submission files → scores.

    BENCHMARKS/{split}/images/  vqav2/  mme/  pope/  mmbench/  seed/  mmvet/    what is read, or a folder for each
    OUT/answers/{task}/                          every answer as it is made, from which a stopped run goes on
    OUT/vqav2/  mme/  …                          submissions, each with its `score.json`
    OUT/scores.json                              every benchmark's rows, earlier calls' with the same model included
    OUT/manifest.json                            versions, hashes of model and question files, settings
    OUT/examples.json, OUT/examples/*.png        the last call's answers right and wrong, with their pictures

Scores are read from the files that were written, by the same scorers as `dualtoken score`. Beside the model's row stand
`chance` (a uniform random choice; for free text, the best constant), `constant` (the best answer given to everything),
`ceiling` (the reference answers themselves) and, on request, `blind` (the model without the picture).
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.answers import Answers
from eval.baselines import baselines, yes_no_accuracy, yes_no_counts
from eval.benchmark import Answered, Benchmark, Question, Respond
from eval.benchmark_mmbench import MMBench
from eval.benchmark_mme import MME
from eval.benchmark_mmvet import MMVet
from eval.benchmark_pope import POPE
from eval.benchmark_seed import SEED
from eval.benchmark_vqav2 import VQAv2
from eval.earlier import read_earlier
from eval.examples import write_examples
from eval.files import write_json
from eval.manifest import hash_files, hash_names_and_sizes, versions
from eval.ranks import Alone, Ranks

if TYPE_CHECKING:
    from data.images import ImageTransform
    from mllm.pretrained import Unified

BENCHMARKS: dict[str, type[Benchmark]] = {kind.name: kind for kind in (VQAv2, MME, POPE, MMBench, SEED, MMVet)}
_LONG_LISTS = ("per_question",)


def evaluate(
    unified: "Unified",
    benchmarks: Sequence[Benchmark],
    out_dir: str | Path,
    batch_size: int = 32,
    limit: int | None = None,
    blind: bool = False,
    max_new_tokens: int | None = None,
    transform: "ImageTransform | None" = None,
    made_from: Mapping[str, Any] | None = None,
    ranks: Ranks = Alone(),
) -> dict[str, Any]:
    """Runs the benchmarks and returns what OUT/scores.json holds (see `run_benchmarks`).

    `limit` is for a smoke run: about so many questions of each benchmark. Without `max_new_tokens` each benchmark has
    its own, without `transform` pictures are cropped and scaled as the tokenizer's config says.
    """
    from eval.responder import Responder

    respond = Responder(unified, batch_size, transform, quiet=ranks.rank > 0)
    respond_blind = Responder(unified, batch_size, transform, blind=True, quiet=ranks.rank > 0) if blind else None
    made_from = {**(made_from or {}), "pictures": respond.transform.describe()}
    return run_benchmarks(benchmarks, respond, Path(out_dir), limit, max_new_tokens, respond_blind, made_from, ranks)


def open_benchmarks(benchmark_dir: str | Path, split: str, tasks: Sequence[str] | None = None) -> list[Benchmark]:
    """The benchmarks `tasks` of DIR/SPLIT, or all that are there."""
    folder = Path(benchmark_dir) / split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: there is no split {split!r} in {benchmark_dir}")
    if tasks is None:
        tasks = [name for name in BENCHMARKS if (folder / name).is_dir()]
        if not tasks:
            raise FileNotFoundError(f"{folder} holds none of the folders {', '.join(BENCHMARKS)}")
    return [BENCHMARKS[task](folder / task, split) for task in known(tasks)]


def known(tasks: Sequence[str]) -> Sequence[str]:
    """The tasks; raises ValueError where one is unknown or none is given."""
    unknown = [task for task in tasks if task not in BENCHMARKS]
    if unknown or not tasks:
        raise ValueError(
            f"unknown benchmark {', '.join(unknown) or '(none given)'}: choose from {', '.join(BENCHMARKS)}"
        )
    return tasks


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    respond: Respond,
    out_dir: Path,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    respond_blind: Respond | None = None,
    made_from: Mapping[str, Any] = {},
    ranks: Ranks = Alone(),
) -> dict[str, Any]:
    """Answers, submits, scores, and writes scores.json and the examples; returns what scores.json holds.

    `tasks` maps a benchmark to `num_questions`, `partial`, `max_new_tokens`, `seconds`, `headline` (the name of its
    most important figure) and the rows `model`, `chance`, `constant`, `ceiling` and perhaps `blind`, each with at least
    that figure. Beside it stand `split`, `partial`, `limit`, and `yes_no_accuracy` over all yes/no questions.

    `made_from` names the model and what else decides an answer: answers, and figures of other tasks, that an earlier
    call left under the same names are kept; submissions of other ones go. Only the first of the `ranks` writes and
    returns figures, the others return {}.
    """
    for name, value in (("limit", limit), ("max_new_tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    tasks: dict[str, dict[str, Any]] = {}
    answered: list[Answered] = []
    manifest: dict[str, Any] = {"versions": versions(), "processes": ranks.size, "limit": limit, **made_from}
    for benchmark, everything in [(benchmark, benchmark.questions()) for benchmark in benchmarks]:
        places = take(everything, limit)
        questions = [everything[place] for place in places]
        partial = len(questions) < len(everything)
        length = max_new_tokens or benchmark.max_new_tokens
        # By one process: it looks at every picture, of which all would be too much for a file system that they share.
        described = ranks.gather(describe(benchmark, length, everything) if ranks.rank == 0 else {})[0]
        settings = {**made_from, **described}
        started = time.monotonic()
        answers = Answers(out_dir / "answers" / benchmark.name, settings, ranks.rank)
        predictions = collect(answers, everything, places, respond, length, ranks)
        seconds = time.monotonic() - started
        guesses: list[str] | None = None
        if respond_blind:
            blind = Answers(out_dir / "answers" / benchmark.name, {**settings, "blind": True}, ranks.rank)
            guesses = collect(blind, everything, places, respond_blind, length, ranks)
        if ranks.rank > 0:
            continue
        manifest.setdefault("tasks", {})[benchmark.name] = {
            **described,
            "folder": str(benchmark.folder),
            "questions": len(questions),
            "of": len(everything),
        }
        figures = tasks[benchmark.name] = {
            "num_questions": len(questions),
            "partial": partial,
            "max_new_tokens": length,
            "seconds": seconds,
            "headline": benchmark.headlines[0],
            "model": submit(benchmark, questions, predictions, out_dir / benchmark.name, partial),
        }
        if guesses is not None:
            figures["blind"] = submit(benchmark, questions, guesses, out_dir / "blind" / benchmark.name, partial)
        if why_not_scored(benchmark, questions, out_dir) is None:
            figures.update(baselines(benchmark, questions))
            own = [Answered(benchmark, *pair) for pair in zip(questions, predictions, strict=True)]
            figures["yes_no"] = yes_no_counts(own)
            answered += own
    if ranks.rank > 0:
        return {}
    earlier = read_earlier(out_dir, made_from)
    tasks = earlier.tasks | tasks
    manifest["tasks"] = earlier.described | manifest["tasks"]
    for name, kind in BENCHMARKS.items():
        if name not in tasks:
            kind.clear(out_dir / name)
        if "blind" not in tasks.get(name, {}):
            kind.clear(out_dir / "blind" / name)
    splits = earlier.splits | {benchmark.name: benchmark.split for benchmark in benchmarks}
    result = {
        "split": benchmarks[0].split if len(set(splits.values())) == 1 else "several",
        "splits": splits,
        "partial": any(figures["partial"] for figures in tasks.values()),
        "limit": limit,
        "tasks": tasks,
        **yes_no_accuracy(tasks.values()),
    }
    write_json(out_dir / "scores.json", result)
    write_json(out_dir / "manifest.json", {**manifest, "partial": result["partial"]})
    write_examples(answered, out_dir)
    return result


def describe(benchmark: Benchmark, max_new_tokens: int, questions: Sequence[Question]) -> dict[str, Any]:
    """What decides an answer beside the model, and the order of the questions."""
    return {
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "question_files": hash_files(benchmark.question_files(), benchmark.folder),
        "picture_files": hash_names_and_sizes({one.image for one in questions if isinstance(one.image, Path)}),
        "decoding": "greedy, LLaVA-1.5 prompts",
        "max_new_tokens": max_new_tokens,
    }


def collect(
    answers: Answers, everything: Sequence[Question], places: Sequence[int], respond: Respond, length: int, ranks: Ranks
) -> list[str]:
    """The answer to the questions at `places`, those of an earlier start included; [] but in the first process.

    Every process asks about its own pictures, so that none is tokenized twice.
    """
    if ranks.rank == 0:
        answers.start()
        for sentence in answers.others():
            print(sentence)
    given = answers.read() if ranks.rank == 0 else {}
    missing = ranks.gather([place for place in places if place not in given])[0]  # as one process sees it
    pictures: dict[Path | bytes, int] = {}
    for place in places:
        pictures.setdefault(everything[place].image, len(pictures))
    own = [place for place in missing if pictures[everything[place].image] % ranks.size == ranks.rank]
    for i, text in respond([everything[place] for place in own], length) if own else ():
        answers.append(own[i], everything[own[i]].text, text)
    answers.close()
    ranks.barrier()
    if ranks.rank > 0:
        return []
    given = answers.read()
    return [given[place] for place in places]


def take(questions: Sequence[Question], limit: int | None) -> list[int]:
    """The places of about `limit` questions, evenly spread, in whole groups; all of them without a limit."""
    if limit is None or limit >= len(questions):
        return list(range(len(questions)))
    groups: dict[Any, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(question.group, []).append(place)
    num_groups = max(1, round(len(groups) * limit / len(questions)))
    chosen = list(groups.values())
    return [place for i in range(num_groups) for place in chosen[i * len(chosen) // num_groups]]


def submit(
    benchmark: Benchmark, questions: Sequence[Question], predictions: Sequence[str], out: Path, partial: bool
) -> dict[str, Any]:
    """Writes the submission and, where it can be scored, its score; returns the figures, the long lists aside."""
    out.mkdir(parents=True, exist_ok=True)
    benchmark.clear(out)
    benchmark.write(questions, predictions, out)
    benchmark.write_upload(questions, predictions, out)
    reason = why_not_scored(benchmark, questions, out)
    if reason is not None:
        return reason
    result = {**benchmark.score(questions, out), "partial": partial}
    write_json(out / "score.json", result)
    return {name: value for name, value in result.items() if name not in _LONG_LISTS}


def why_not_scored(benchmark: Benchmark, questions: Sequence[Question], out: Path) -> dict[str, str] | None:
    """The figures of a benchmark without any, or None."""
    if benchmark.grader:
        return {"not_graded": f"the grader is {benchmark.grader}: the answers are in {out}"}
    if not any(question.reference for question in questions):
        return {"not_scored": f"{benchmark.split} has no public answers: submit the files in {out}"}
    return None
