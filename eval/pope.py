"""POPE: is the object in the image, yes or no (paper Tab. 5; rules of the official evaluate.py, MIT).

Three splits (random, popular, adversarial) whose question ids repeat, so answers are matched within a split. "Yes" is
the positive class. The headline is the mean of the splits' F1.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.files import by_id, read_json_lines, require_same_ids

HELP = "POPE: accuracy, precision, recall, F1 per split, 0-1"
PROTOCOL = "official evaluate.py: no if a word of the first sentence is No, not or no; yes is positive"

_ANSWER_KEYS = ("answer", "text")  # the official files', and LLaVA's
_NO_WORDS = {"No", "not", "no"}


class Row(NamedTuple):
    reference: str  # yes or no
    response: str


def parse(response: str) -> str:
    """no if a word of the first sentence is No, not or no, else yes. "NO" and "No!" are therefore a yes."""
    words = response.split(".")[0].replace(",", "").split(" ")
    return "no" if _NO_WORDS.intersection(words) else "yes"


def read_labels(path: str | Path) -> list[dict[str, Any]]:
    """The lines `{question_id, image, text, label}` of one split, checked."""
    labels = by_id(read_json_lines(path), "question_id", path)
    for question_id, row in labels.items():
        if row.get("label") not in ("yes", "no"):
            raise ValueError(f"{path} question_id {question_id!r} has the label {row.get('label')!r}, not yes or no")
    return list(labels.values())


def read_answers(path: str | Path) -> list[dict[str, Any]]:
    """The lines `{question_id, answer}` of one split; the text may also stand in `text`, as LLaVA writes it."""
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        if "label" in row and "answer" not in row:
            raise ValueError(f"{path} line {number} has a label and no answer: this is a label file, not answers")
        if not isinstance(_response(row), str):
            raise ValueError(f"{path} line {number} has no text in 'answer'")
    return rows


def match(
    labels: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], labels_name: object, answers_name: object
) -> list[Row]:
    """Pairs by question id; in order where no answer has an id, as in the official files `{question, answer}`."""
    if any("question_id" in row for row in answers):
        responses = by_id(answers, "question_id", answers_name)
        require_same_ids((row["question_id"] for row in labels), responses, labels_name, answers_name)
        answers = [responses[row["question_id"]] for row in labels]
    elif len(labels) != len(answers):
        raise ValueError(
            f"{answers_name} holds {len(answers)} answers without question_id, {labels_name} {len(labels)} questions: "
            "they are matched in order, so their number must be the same"
        )
    for row, answer in zip(labels, answers, strict=True):  # ids repeat from split to split, questions do not
        asked, text = answer.get("question", answer.get("prompt")), row.get("text")
        if isinstance(asked, str) and isinstance(text, str) and text.strip() not in asked:
            raise ValueError(f"{answers_name} answers {asked!r} where {labels_name} asks {text!r}: another split?")
    return [Row(row["label"], _response(answer)) for row, answer in zip(labels, answers, strict=True)]


def load(labels_path: str | Path, answers_path: str | Path) -> list[Row]:
    """The pairs of one split."""
    return match(read_labels(labels_path), read_answers(answers_path), labels_path, answers_path)


def score_split(rows: Sequence[Row]) -> dict[str, float]:
    """One split, 0–1. Precision without a single predicted yes is 0, and `score` names the split in its warnings."""
    predicted = [parse(row.response) == "yes" for row in rows]
    actual = [row.reference == "yes" for row in rows]
    true_positives = sum(p and a for p, a in zip(predicted, actual, strict=True))
    return {
        "accuracy": sum(p == a for p, a in zip(predicted, actual, strict=True)) / len(rows),
        "precision": _ratio(true_positives, sum(predicted)),
        "recall": _ratio(true_positives, sum(actual)),
        "f1": _ratio(2 * true_positives, sum(predicted) + sum(actual)),
        "yes_ratio": sum(predicted) / len(rows),
        "num_questions": len(rows),
    }


def score(splits: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Each split's figures under its name, and `mean_f1`. A single split's figures also stand beside `mean_f1`."""
    per_split = {name: score_split(rows) for name, rows in splits.items()}
    warnings: dict[str, Any] = {
        "no_predicted_yes": [name for name, figures in per_split.items() if figures["yes_ratio"] == 0],
        "no_actual_yes": [name for name, rows in splits.items() if all(row.reference == "no" for row in rows)],
        "empty_answers": sum(not row.response.strip() for rows in splits.values() for row in rows),
    }
    alone = next(iter(per_split.values())) if len(per_split) == 1 else {}
    return {
        **alone,
        **per_split,
        "mean_f1": sum(figures["f1"] for figures in per_split.values()) / len(per_split),
        "warnings": {name: value for name, value in warnings.items() if value},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("labels", "coco_pope_*.json"), ("answers", "answers, {question_id, answer} a line")):
        parser.add_argument(
            f"--{name}", required=True, nargs="+", action="extend", metavar="[SPLIT=]FILE", help=f"{what}; may repeat"
        )


def run(args: argparse.Namespace) -> dict[str, Any]:
    labels, answers = _named(args.labels, "--labels"), _named(args.answers, "--answers")
    if len(labels) == len(answers) == 1 and None in (*labels, *answers):
        # One split needs no name: that of the official file serves, coco_pope_random.json.
        path = Path(*labels.values())
        given = next((name for name in (*labels, *answers) if name), None)
        name = given or path.stem.removeprefix("coco_pope_")
        return score({name: load(path, *answers.values())})
    if None in (*labels, *answers):
        raise ValueError("several splits need names: --labels random=FILE popular=FILE, and the same for --answers")
    require_same_ids(labels, answers, "--labels", "--answers")
    return score({str(name): load(labels[name], answers[name]) for name in labels})


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    splits = [(name, figures) for name, figures in result.items() if isinstance(figures, dict) and "f1" in figures]
    keys = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    lines = [(f"{name} {key.replace('_', ' ')}", f"{figures[key]:.4f}") for name, figures in splits for key in keys]
    return [("mean f1", f"{result['mean_f1']:.4f}"), *lines]


def _named(arguments: Sequence[str], option: str) -> dict[str | None, str]:
    """`random=FILE` → {random: FILE}; a plain FILE, or one whose own name holds `=`, has the name None."""
    named: dict[str | None, str] = {}
    for argument in arguments:
        found = re.fullmatch(r"(\w+)=(.+)", argument)
        name, path = found.groups() if found and not Path(argument).exists() else (None, argument)
        if name in named:
            raise ValueError(
                f"{option} is given twice for {'one split' if name is None else repr(name)}: name each split"
            )
        named[name] = path
    return named


def _response(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in _ANSWER_KEYS if key in row), None)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
