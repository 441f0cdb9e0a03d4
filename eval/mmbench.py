"""MMBench (dev, English): multiple choice with the options rotated (paper Tab. 5).

A question appears once per rotation of its options, as rows whose index is the base id plus a multiple of a million.
CircularEval, the headline, counts a question as right if all its rotations are; the vanilla score looks at the rows
whose index is below a million alone. How an option is read from an answer: eval/options.py.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from eval.files import read_table
from eval.options import extract_option

HELP = "MMBench: circular and vanilla accuracy, 0-1"
PROTOCOL = "CircularEval; options read by the static rules of eval/options.py, never guessed"

LETTERS = "ABCD"
ROTATION = 1_000_000
_EMPTY = ("", "nan", "none")  # how tables that went through pandas spell an empty cell


@dataclass(frozen=True)
class Row:
    index: int
    question: str
    hint: str
    options: dict[str, str]
    answer: str
    category: str
    prediction: str

    @property
    def base(self) -> int:
        return self.index % ROTATION


def is_empty(cell: str) -> bool:
    return cell.strip().lower() in _EMPTY


def parse_rows(records: Sequence[Mapping[str, str]], path: object) -> list[Row]:
    """The rows of the official table; `answer` is '' where it has none, as in the test split."""
    _require_columns(records[0], ("index", "question", "A", "B", "answer"), path)
    rows = [_row(record, f"{path} row {number}") for number, record in enumerate(records, start=1)]
    seen: set[int] = set()
    for row in rows:
        if row.index in seen:
            raise ValueError(f"{path} holds index {row.index} twice: remove the duplicate")
        seen.add(row.index)
    orphans = {row.base for row in rows} - seen
    if orphans:
        raise ValueError(f"{path} has rotations of question {min(orphans)} but not its own row: it is not complete")
    return rows


def load(path: str | Path) -> list[Row]:
    """A submission: the official columns (the image is not needed) and `prediction`."""
    records = read_table(path)
    _require_columns(records[0], ("prediction",), path)
    rows = parse_rows(records, path)
    unanswered = next((row for row in rows if not row.answer), None)
    if unanswered:
        raise ValueError(f"{path} index {unanswered.index} has no answer: a split without public ones cannot be scored")
    return rows


def score(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracies 0–1: `circular`, `vanilla`, `per_category` (circular); `unparsed` counts rows."""
    questions: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        questions[row.base].append(row)
    letters = {row.index: extract_option(row.prediction, row.options) for row in rows}
    right = {row.index: letters[row.index] == row.answer for row in rows}
    unparsed = sum(letter is None for letter in letters.values())
    circular: dict[str, list[bool]] = defaultdict(list)
    vanilla: dict[str, list[bool]] = defaultdict(list)
    incomplete = 0
    for base, rotations in questions.items():
        original = next(row for row in rotations if row.index == base)
        circular[original.category].append(all(right[row.index] for row in rotations))
        vanilla[original.category].append(right[base])
        incomplete += len(rotations) < len(original.options)
    warnings = {
        "unparsed": unparsed,
        "questions_without_all_rotations": incomplete,
        "questions_without_category": len(circular.get("", ())),
    }
    return {
        "circular": _share(chain.from_iterable(circular.values())),
        "vanilla": _share(chain.from_iterable(vanilla.values())),
        "per_category": {name: _share(group) for name, group in sorted(circular.items()) if name},
        "vanilla_per_category": {name: _share(group) for name, group in sorted(vanilla.items()) if name},
        "unparsed": unparsed,
        "num_questions": len(questions),
        "num_rows": len(rows),
        "warnings": {name: count for name, count in warnings.items() if count},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", required=True, metavar="FILE", help=".tsv, .csv or .xlsx: the official columns and prediction"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    return score(load(args.results))


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    categories = [(f"circular {name}", f"{value:.4f}") for name, value in result["per_category"].items()]
    return [*((name, f"{result[name]:.4f}") for name in ("circular", "vanilla")), *categories]


def _require_columns(record: Mapping[str, str], columns: Sequence[str], path: object) -> None:
    missing = [column for column in columns if column not in record]
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(map(repr, missing))}: it is not of the expected format")


def _row(record: Mapping[str, str], where: str) -> Row:
    index = record["index"].strip()
    try:
        number = int(index.removesuffix(".0"))  # a spreadsheet may have made it a decimal number
    except ValueError:
        raise ValueError(f"{where} has the index {index!r}, which is not a number") from None
    options: dict[str, str] = {}
    for letter in LETTERS:
        if is_empty(record.get(letter, "")):
            break  # the options stop at the first empty one
        options[letter] = record[letter]
    answer = "" if is_empty(record["answer"]) else record["answer"].strip()
    if answer and answer not in options:
        raise ValueError(
            f"{where} (index {number}) has the answer {answer!r}, which is none of its options "
            f"({', '.join(options) or 'it has none'}): it is not of the expected format"
        )
    return Row(
        index=number,
        question=record["question"],
        hint=record.get("hint", ""),
        options=options,
        answer=answer,
        category=record.get("category", "").strip(),
        prediction=record.get("prediction", ""),
    )


def _share(right: Iterable[bool]) -> float:
    right = list(right)
    return sum(right) / len(right)
