"""POPE for the runner: prompts, one answer file per split, scoring (paper Tab. 5)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval import pope
from eval.benchmark import SHORT_ANSWER, Benchmark, Question

SPLITS = ("random", "popular", "adversarial")


class POPE(Benchmark):
    name = "pope"
    submissions = ("coco_pope_*.jsonl",)
    headlines = ("mean_f1",)

    def questions(self) -> list[Question]:
        present = self._present()
        if not present:
            raise FileNotFoundError(f"{self.folder} holds none of {', '.join(_file_name(name) for name in SPLITS)}")
        return [self._question(row, name, path) for name, path in present.items() for row in pope.read_labels(path)]

    def question_files(self) -> list[Path]:
        return list(self._present().values())

    def _present(self) -> dict[str, Path]:
        paths = {name: self.folder / _file_name(name) for name in SPLITS}
        return {name: path for name, path in paths.items() if path.exists()}

    def _question(self, row: dict[str, Any], split: str, path: Path) -> Question:
        self.require(row, path, text=str, image=str)
        return Question(
            prompt=row["text"] + SHORT_ANSWER,
            image=self.find_image(row["image"]),
            text=row["text"],
            reference=row["label"],
            group=(split, row["question_id"]),
            is_yes_no=True,
            record={**row, "split": split},
        )

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        lines: dict[str, list[str]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            row = {"question_id": question.record["question_id"], "question": question.text, "answer": prediction}
            lines.setdefault(question.record["split"], []).append(json.dumps(row, ensure_ascii=False) + "\n")
        for name, rows in lines.items():
            _answers_path(out, name).write_text("".join(rows), encoding="utf-8")

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        labels: dict[str, list[dict[str, Any]]] = {}
        for question in questions:
            labels.setdefault(question.record["split"], []).append(question.record)
        answers = {name: pope.read_answers(_answers_path(out, name)) for name in labels}
        return pope.score(
            {name: pope.match(labels[name], answers[name], name, _answers_path(out, name)) for name in labels}
        )

    def correctness(self, question: Question, prediction: str) -> float:
        return float(pope.parse(prediction) == question.reference)

    def chance(self, questions: Sequence[Question]) -> dict[str, float]:
        """F1 of a coin: half of the positives are found, and half of everything is called positive."""
        scores = []
        for name in {question.record["split"] for question in questions}:
            labels = [question.reference == "yes" for question in questions if question.record["split"] == name]
            scores.append(sum(labels) / (len(labels) / 2 + sum(labels)))
        return {"mean_f1": sum(scores) / len(scores)}


def _file_name(split: str) -> str:
    return f"coco_pope_{split}.json"


def _answers_path(out: Path, split: str) -> Path:
    return out / f"coco_pope_{split}.jsonl"
