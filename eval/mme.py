"""MME: yes/no questions in pairs, fourteen tasks (paper Tab. 5; implemented from the published rules).

A task scores 100 · accuracy + 100 · accuracy+, where accuracy+ counts the images of which both questions are right.
Perception sums ten tasks (at most 2000 points), cognition four (at most 800).
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.files import read_text

HELP = "MME: perception and cognition points"
PROTOCOL = "first four characters of the lower-cased response, unstripped; 100 · accuracy + 100 · accuracy+ per task"

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = PERCEPTION + COGNITION
_MAX_POINTS = 200.0


class Row(NamedTuple):
    image: str
    question: str
    reference: str
    response: str


def parse(response: str) -> str:
    """yes, no or other, from the first four characters. Leading spaces count; "Nothing" and "know" are a no."""
    start = response.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def is_right(row: Row) -> bool:
    return parse(row.response) == row.reference.lower()


def load(folder: str | Path) -> dict[str, list[Row]]:
    """The submission: a folder of `<task>.txt`. Tasks without a file are left out, and named by `score`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that holds the fourteen <task>.txt of MME")
    tasks = {task: read_task(folder / f"{task}.txt") for task in TASKS if (folder / f"{task}.txt").exists()}
    if not tasks:
        raise ValueError(f"{folder} holds no MME submission: none of {', '.join(f'{task}.txt' for task in TASKS)}")
    return tasks


def read_task(path: str | Path) -> list[Row]:
    """Lines `image\\tquestion\\tground truth\\tresponse`, two consecutive ones per image."""
    lines = read_text(path).split("\n")
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty: every task needs its questions and responses")
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) != len(Row._fields):
            raise ValueError(
                f"{path} line {number} has {len(fields)} fields between tabs, not the 4 of "
                "image, question, ground truth, response"
            )
        row = Row(*fields)
        if row.reference.lower() not in ("yes", "no"):
            raise ValueError(
                f"{path} line {number} has the ground truth {row.reference!r}, which is neither Yes nor No"
            )
        rows.append(row)
    for number in range(0, len(rows), 2):
        if number + 1 == len(rows) or rows[number].image != rows[number + 1].image:
            raise ValueError(
                f"{path} line {number + 1}: the image {rows[number].image!r} does not have two consecutive lines, "
                "as every image of MME must"
            )
    return rows


def score_task(rows: Sequence[Row]) -> dict[str, float]:
    """Points of one task; rows 2i and 2i+1 belong to one image."""
    right = [is_right(row) for row in rows]
    both = [first and second for first, second in zip(right[::2], right[1::2], strict=True)]
    accuracy, accuracy_plus = sum(right) / len(right), sum(both) / len(both)
    return {
        "score": 100 * accuracy + 100 * accuracy_plus,
        "accuracy": accuracy,
        "accuracy_plus": accuracy_plus,
        "other": sum(parse(row.response) == "other" for row in rows),
        "num_questions": len(rows),
    }


def score(tasks: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """`perception`, `cognition` (points, None without any of their tasks), `tasks` (points of each)."""
    details = {task: score_task(tasks[task]) for task in TASKS if task in tasks}
    points = {task: detail["score"] for task, detail in details.items()}
    repeated = {task: len(rows) - len({(row.image, row.question) for row in rows}) for task, rows in tasks.items()}
    warnings: dict[str, Any] = {
        "missing_tasks": [task for task in TASKS if task not in tasks],
        "other_answers": sum(int(detail["other"]) for detail in details.values()),
        "repeated_questions": sum(Counter(repeated).values()),
    }
    return {
        "perception": _sum(points, PERCEPTION),
        "cognition": _sum(points, COGNITION),
        "perception_maximum": _MAX_POINTS * sum(task in points for task in PERCEPTION),
        "cognition_maximum": _MAX_POINTS * sum(task in points for task in COGNITION),
        "tasks": points,
        "task_details": details,
        "warnings": {name: value for name, value in warnings.items() if value},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", required=True, metavar="DIR", help="folder of the fourteen <task>.txt")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return score(load(args.results))


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    sums = [
        (f"{name} (of {result[f'{name}_maximum']:.0f})", f"{result[name]:.2f}")
        for name in ("perception", "cognition")
        if result[name] is not None
    ]
    return [*sums, *((task, f"{points:.2f}") for task, points in result["tasks"].items())]


def _sum(points: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    """A sum over no task at all is no score, not a score of zero."""
    present = [points[task] for task in tasks if task in points]
    return sum(present) if present else None
