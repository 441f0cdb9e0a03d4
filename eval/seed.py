"""SEED-Bench, image part: multiple choice over nine types of question (paper Tab. 5).

    dualtoken score seed --questions SEED-Bench.json --results FILE.jsonl

Types 1–9 are about images, 14,233 rows; those about videos are left out. Results are lines `{question_id, prediction}`.
One question_id stands in the official file twice: it takes two predictions in that order, or one for both.

A prediction is the text that a model generated, of which eval/options.py reads the letter. The official code ranks the
options' likelihoods instead, which is another number: --scored likelihood says that the letters come from there.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval.files import read_json, read_json_lines
from eval.options import extract_option

HELP = "SEED-Bench (image): accuracy overall and per type, 0-1"
PROTOCOL = "types 1-9; letters read by the static rules of eval/options.py, never guessed"

IMAGE_TYPES = range(1, 10)
NUM_OFFICIAL = 14_233
SCORED = {"letter": "letter of the generated answer", "likelihood": "option of greatest likelihood"}


class Row(NamedTuple):
    type_name: str
    options: dict[str, str]
    answer: str
    prediction: str


def read_questions(path: str) -> tuple[list[dict[str, Any]], dict[int, str], set[str]]:
    """The image questions, the names of types, and the ids of all others. Raises ValueError."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("questions"), list):
        raise ValueError(f"{path} has no list 'questions': this is not SEED-Bench.json")
    if not isinstance(content.get("question_type"), dict):
        raise ValueError(f"{path} has no table 'question_type' {{name: id}}: this is not SEED-Bench.json")
    names = {number: name for name, number in content["question_type"].items() if isinstance(number, int)}
    images, others = [], set()
    for number, row in enumerate(content["questions"], start=1):
        kind = row.get("question_type_id") if isinstance(row, dict) else None
        if not isinstance(kind, int) or kind not in names or row.get("question_id") is None:
            raise ValueError(
                f"{path} question {number} has no question_id or no known question_type_id: another version?"
            )
        if kind not in IMAGE_TYPES:
            others.add(str(row["question_id"]))
        elif row.get("data_type", "image") != "image":
            raise ValueError(f"{path} question {row['question_id']!r} of type {kind} is about no "
                             "image: in SEED-Bench types 1 to 9 are; this is another version")  # fmt: skip
        else:
            _require_options(row, path)
            images.append(row)
    if not images:
        raise ValueError(f"{path} holds no question about an image (types 1 to 9)")
    return images, names, others


def load(questions_path: str, results_path: str) -> tuple[list[Row], int]:
    """Rows with their predictions, and how many predictions were for questions that are not scored here."""
    questions, names, others = read_questions(questions_path)
    predictions: dict[str, list[str]] = defaultdict(list)
    for number, row in enumerate(read_json_lines(results_path), start=1):
        if row.get("question_id") is None or not isinstance(row.get("prediction"), str):
            raise ValueError(f"{results_path} row {number} is not {{question_id, prediction}} with a text")
        predictions[str(row["question_id"])].append(row["prediction"])
    asked = Counter(str(row["question_id"]) for row in questions)
    if unknown := [name for name in predictions if name not in asked and name not in others]:
        raise ValueError(f"{questions_path} lacks {len(unknown)} ids of {results_path} ({unknown[0]!r} for one): "
                         "both must be of the same version")  # fmt: skip
    if missing := [name for name in asked if name not in predictions]:
        raise ValueError(f"{results_path} lacks predictions for {len(missing)} questions ({missing[0]!r} for one)")
    for name, count in asked.items():
        if len(predictions[name]) not in (1, count):
            raise ValueError(
                f"{results_path} holds question_id {name!r} {len(predictions[name])} times: remove duplicates"
            )
    rows, used = [], Counter[str]()
    for row in questions:
        name = str(row["question_id"])
        given = predictions[name]
        options = {letter.upper(): str(row[f"choice_{letter}"]) for letter in "abcd"}
        type_name = names[row["question_type_id"]]
        rows.append(Row(type_name, options, row["answer"], given[min(used[name], len(given) - 1)]))
        used[name] += 1
    return rows, sum(len(given) for name, given in predictions.items() if name not in asked)


def score(rows: Sequence[Row], not_scored: int = 0) -> dict[str, Any]:
    """Accuracies 0–1: `accuracy`, `per_type`; `unparsed` predictions count as wrong."""
    letters = [extract_option(row.prediction, row.options) for row in rows]
    right: dict[str, list[bool]] = defaultdict(list)
    for row, letter in zip(rows, letters, strict=True):
        right[row.type_name].append(letter == row.answer)
    unparsed = sum(letter is None for letter in letters)
    warnings = {
        "unparsed": unparsed,
        "predictions_for_questions_not_about_images": not_scored,
        "rows_instead_of_the_official_14233": len(rows) if len(rows) != NUM_OFFICIAL else 0,
    }
    return {
        "accuracy": sum(map(sum, right.values())) / len(rows),
        "per_type": {name: sum(values) / len(values) for name, values in sorted(right.items())},
        "unparsed": unparsed,
        "num_rows": len(rows),
        "warnings": {name: count for name, count in warnings.items() if count},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", required=True, metavar="SEED-Bench.json", help="the official file")
    parser.add_argument("--results", required=True, metavar="FILE.jsonl", help="{question_id, prediction} a line")
    parser.add_argument("--scored", choices=SCORED, default="letter", help="what the predictions are (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return {"scored": SCORED[args.scored], **score(*load(args.questions, args.results))}


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    types = [(name, f"{value:.4f}") for name, value in result["per_type"].items()]
    return [("accuracy", f"{result['accuracy']:.4f}"), *types, ("scored", result.get("scored", SCORED["letter"]))]


def _require_options(row: Mapping[str, Any], path: str) -> None:
    if any(f"choice_{letter}" not in row for letter in "abcd") or row.get("answer") not in ("A", "B", "C", "D"):
        raise ValueError(f"{path} question {row['question_id']!r} lacks choice_a … choice_d or an answer from A to D")
