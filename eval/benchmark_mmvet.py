"""MM-Vet for the runner: prompts and the submission; its grader is GPT-4, so there is no score here (paper Tab. 5).

mm-vet.json      {"v1_0": {"imagename", "question", "answer", …}, …}; images/
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark, Question
from eval.files import read_json, write_json


class MMVet(Benchmark):
    name = "mmvet"
    submissions = ("mm-vet.json",)
    headlines = ("total",)
    max_new_tokens = 1024
    grader = "GPT-4, through the benchmark's own notebook or server"

    def questions(self) -> list[Question]:
        [path] = self.question_files()
        records = read_json(path, unique_keys=True)
        if not isinstance(records, dict) or not records:
            raise ValueError(f"{path} holds no questions by their id: this is not the mm-vet.json of MM-Vet")
        for record in records.values():
            self.require(record if isinstance(record, dict) else {}, path, imagename=str, question=str, answer=str)
        return [
            Question(
                prompt=record["question"],  # LLaVA-1.5 adds no suffix: answers may be long
                image=self.find_image(record["imagename"]),
                text=record["question"],
                reference=record["answer"],
                group=question_id,
                is_yes_no=False,
                record={**record, "id": question_id},
            )
            for question_id, record in records.items()
        ]

    def question_files(self) -> list[Path]:
        return [self.folder / "mm-vet.json"]

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        pairs = zip(questions, predictions, strict=True)
        write_json(out / "mm-vet.json", {question.record["id"]: prediction for question, prediction in pairs})

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        raise ValueError(f"MM-Vet is not graded here: its grader is {self.grader}")

    def correctness(self, question: Question, prediction: str) -> float:
        raise ValueError(f"MM-Vet is not graded here: its grader is {self.grader}")
