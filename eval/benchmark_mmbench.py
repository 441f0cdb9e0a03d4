"""MMBench for the runner: prompts, the table with predictions, scoring (paper Tab. 5)."""

import base64
import binascii
import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval import mmbench
from eval.benchmark import OPTION_LETTER, Benchmark, Question
from eval.files import read_table
from eval.options import extract_option

_LONGEST_REFERENCE = 64  # a shorter `image` cell is no picture but the index of the row that holds it
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class MMBench(Benchmark):
    name = "mmbench"
    submissions = ("mmbench.tsv", "mmbench.xlsx")
    headlines = ("circular", "vanilla")
    max_new_tokens = 1024

    def questions(self) -> list[Question]:
        path = self._path()
        records = read_table(path)
        rows = mmbench.parse_rows(records, path)
        images = {row.index: record.get("image", "") for row, record in zip(rows, records, strict=True)}
        return [
            Question(
                prompt=prompt(row),
                image=_image(images, row, path),
                text=prompt(row).removesuffix(OPTION_LETTER),
                reference=row.answer,
                group=row.base,
                is_yes_no=False,
                record={"row": row, "cells": {name: cell for name, cell in record.items() if name != "image"}},
            )
            for row, record in zip(rows, records, strict=True)
        ]

    def question_files(self) -> list[Path]:
        return [self._path()]

    def _path(self) -> Path:
        paths = sorted(self.folder.glob("*.tsv"))
        if len(paths) != 1:
            raise ValueError(f"{self.folder} holds {len(paths)} .tsv files: exactly one is expected")
        return paths[0]

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        cells = _with_predictions(questions, predictions)
        with open(out / "mmbench.tsv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(cells[0]), delimiter="\t")
            writer.writeheader()
            writer.writerows(cells)

    def write_upload(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        """The workbook that the official server takes, where openpyxl is installed (the extra `eval`)."""
        try:
            import openpyxl
        except ImportError:
            return
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("Sheet1")
        cells = _with_predictions(questions, predictions)
        for row in (list(cells[0]), *(list(row.values()) for row in cells)):
            sheet.append([_as_text(sheet, cell) for cell in row])
        book.save(out / "mmbench.xlsx")

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        return mmbench.score(mmbench.load(out / "mmbench.tsv"))

    def correctness(self, question: Question, prediction: str) -> float:
        return float(extract_option(prediction, question.record["row"].options) == question.reference)

    def chance(self, questions: Sequence[Question]) -> dict[str, float]:
        """One in the number of options; for the circular score, that for each rotation."""
        circular: dict[int, float] = defaultdict(lambda: 1.0)
        vanilla: dict[int, float] = {}
        for question in questions:
            row = question.record["row"]
            circular[row.base] /= len(row.options)
            vanilla[row.base] = 1 / len(row.options)
        return {"circular": sum(circular.values()) / len(circular), "vanilla": sum(vanilla.values()) / len(vanilla)}


def _as_text(sheet: Any, cell: str) -> Any:
    """A text cell of a workbook: `=5` is not computed, and what a workbook cannot hold is a space."""
    from openpyxl.cell import WriteOnlyCell

    written = WriteOnlyCell(sheet, _CONTROL.sub(" ", cell))
    written.data_type = "s"
    return written


def _with_predictions(questions: Sequence[Question], predictions: Sequence[str]) -> list[dict[str, str]]:
    pairs = zip(questions, predictions, strict=True)
    return [{**question.record["cells"], "prediction": prediction} for question, prediction in pairs]


def prompt(row: mmbench.Row) -> str:
    """`hint\\nquestion\\nA. …\\nB. …` and the suffix."""
    hint = [] if mmbench.is_empty(row.hint) else [row.hint]
    return "\n".join([*hint, row.question, *(f"{a}. {text}" for a, text in row.options.items())]) + OPTION_LETTER


def _image(images: dict[int, str], row: mmbench.Row, path: Path) -> bytes:
    """The picture of a row: in its own cell, in the row whose index its cell names, or else in its base row."""
    cell = images[row.index].strip()
    if len(cell) <= _LONGEST_REFERENCE:
        cell = images.get(int(cell) if cell.isdigit() else row.base, "")
    try:
        image = base64.b64decode(cell, validate=True)
    except binascii.Error:
        raise ValueError(f"{path} index {row.index}: the image is not valid base64") from None
    if not image:
        raise ValueError(f"{path} index {row.index} has no image")
    return image
