"""SEED-Bench, images, for the runner: prompts, the submission, scoring by the generated letter (paper Tab. 5).

    SEED-Bench.json      {"questions": […], "question_type": {name: id}}; SEED-Bench-image/

One official question_id is there twice: both rows are asked, and the submission holds both in the order of the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmark import OPTION_LETTER, Benchmark, Question
from eval.files import read_json_lines
from eval.options import extract_option
from eval.seed import SCORED, Row, read_questions, score

LETTERS = "ABCD"


class SEED(Benchmark):
    name = "seed"
    submissions = ("seed.jsonl",)
    headlines = ("accuracy",)
    image_folders = ("SEED-Bench-image", "images")

    def questions(self) -> list[Question]:
        [path] = self.question_files()
        rows, types, _ = read_questions(str(path))
        return [self._question(row, types, place, path) for place, row in enumerate(rows)]

    def _question(self, row: dict[str, Any], types: dict[int, str], place: int, path: Path) -> Question:
        choices = {f"choice_{letter.lower()}": str for letter in LETTERS}
        self.require(row, path, question=str, data_id=str, answer=str, **choices)
        options = {letter: row[f"choice_{letter.lower()}"] for letter in LETTERS}
        text = "\n".join([row["question"], *(f"{letter}. {option}" for letter, option in options.items())])
        return Question(
            prompt=text + OPTION_LETTER,
            image=self.find_image(row["data_id"]),
            text=text,
            reference=row["answer"],
            group=place,
            is_yes_no=False,
            record={**row, "options": options, "type": types.get(row["question_type_id"], row["question_type_id"])},
        )

    def question_files(self) -> list[Path]:
        return [self.folder / "SEED-Bench.json"]

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        rows = [
            {"question_id": question.record["question_id"], "prediction": prediction}
            for question, prediction in zip(questions, predictions, strict=True)
        ]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / "seed.jsonl").write_text("".join(lines), encoding="utf-8")

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        path = out / "seed.jsonl"
        rows = read_json_lines(path)
        if [row["question_id"] for row in rows] != [question.record["question_id"] for question in questions]:
            raise ValueError(f"{path} does not answer the questions in their order: run the evaluation again")
        answered = [
            Row(str(question.record["type"]), question.record["options"], question.reference, row["prediction"])
            for question, row in zip(questions, rows, strict=True)
        ]
        return {"scored": SCORED["letter"], **score(answered)}

    def correctness(self, question: Question, prediction: str) -> float:
        return float(extract_option(prediction, question.record["options"]) == question.reference)

    def chance(self, questions: Sequence[Question]) -> dict[str, float]:
        return {"accuracy": 1 / len(LETTERS)}
