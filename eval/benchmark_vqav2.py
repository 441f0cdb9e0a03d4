"""VQAv2 for the runner: prompts, results file, scoring (paper Tab. 5)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval import vqav2
from eval.benchmark import SHORT_ANSWER, Benchmark, Question
from eval.files import by_id, read_json, require_same_ids


class VQAv2(Benchmark):
    name = "vqav2"
    submissions = ("v2_OpenEnded_mscoco_*_dualtoken_results.json",)
    headlines = ("overall",)

    def questions(self) -> list[Question]:
        path, annotations_path = self._paths()
        content = read_json(path)
        rows = by_id(content.get("questions", []) if isinstance(content, dict) else [], "question_id", path)
        if not rows:
            raise ValueError(f"{path} holds no questions: this is not a VQAv2 questions file")
        for row in rows.values():
            self.require(row, path, question=str, image_id=int)
        annotations: dict[Any, dict[str, Any]] = {}
        if annotations_path.exists():  # test-dev has none
            annotations = {row["question_id"]: row for row in vqav2.read_annotations(path, annotations_path)}
            require_same_ids(rows, annotations, path, annotations_path)
        return [self._question(row, annotations.get(question_id)) for question_id, row in rows.items()]

    def question_files(self) -> list[Path]:
        return [path for path in self._paths() if path.exists()]

    def _paths(self) -> tuple[Path, Path]:
        """Of the questions and of their answers."""
        questions = self.folder / f"v2_OpenEnded_mscoco_{self.split}_questions.json"
        return questions, self.folder / f"v2_mscoco_{self.split}_annotations.json"

    def _question(self, row: dict[str, Any], annotation: dict[str, Any] | None) -> Question:
        annotation = annotation or {}
        return Question(
            prompt=row["question"] + SHORT_ANSWER,
            # The questions of test-dev2015 are about pictures of test2015.
            image=self.find_image(f"COCO_{self.split.replace('-dev', '')}_{row['image_id']:012d}.jpg"),
            text=row["question"],
            reference=annotation.get("multiple_choice_answer", ""),
            group=row["question_id"],
            is_yes_no=annotation.get("answer_type") == "yes/no",
            record={**row, **annotation},
        )

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        rows = [
            {"question_id": question.record["question_id"], "answer": prediction}
            for question, prediction in zip(questions, predictions, strict=True)
        ]
        self._results_path(out).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        annotations = [question.record for question in questions]
        predictions = vqav2.read_results(self._results_path(out))
        require_same_ids(
            (row["question_id"] for row in annotations), predictions, "the questions", self._results_path(out)
        )
        return vqav2.score(annotations, predictions)

    def correctness(self, question: Question, prediction: str) -> float:
        return vqav2.accuracy(prediction, question.record["answers"])

    def _results_path(self, out: Path) -> Path:
        return out / f"v2_OpenEnded_mscoco_{self.split}_dualtoken_results.json"
