"""MME for the runner: prompts, the task files of a submission, scoring (paper Tab. 5).

A task is a folder with `images/` and `questions_answers_YN/*.txt`, or with both kinds of file side by side.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval import mme
from eval.benchmark import SHORT_ANSWER, Benchmark, Question
from eval.files import read_text

_YES_NO_REQUEST = " Please answer yes or no."


class MME(Benchmark):
    name = "mme"
    submissions = tuple(f"{task}.txt" for task in mme.TASKS)
    headlines = ("perception", "cognition")

    def questions(self) -> list[Question]:
        questions = [question for task in mme.TASKS for question in self._task(task)]
        if not questions:
            raise ValueError(f"{self.folder} holds none of the MME tasks ({', '.join(mme.TASKS)})")
        return questions

    def question_files(self) -> list[Path]:
        return [path for task in mme.TASKS for path in self._files(task)]

    def _files(self, task: str) -> list[Path]:
        folder = self.folder / task
        nested = folder / "questions_answers_YN"
        return sorted((nested if nested.is_dir() else folder).glob("*.txt"))

    def _task(self, task: str) -> Iterator[Question]:
        folder = self.folder / task
        for path in self._files(task):
            lines = [line for line in read_text(path).split("\n") if line]
            pairs = [line.split("\t") for line in lines]
            if len(pairs) != 2 or any(len(pair) != 2 or pair[1].lower() not in ("yes", "no") for pair in pairs):
                raise ValueError(f"{path} does not hold two lines `question<tab>Yes|No`, as every image of MME must")
            image = self.find_image(f"{path.stem}.jpg", folder / "images", folder)
            for text, reference in pairs:
                yield Question(
                    prompt=text.replace(_YES_NO_REQUEST, "") + SHORT_ANSWER,
                    image=image,
                    text=text,
                    reference=reference,
                    group=(task, path.stem),
                    is_yes_no=True,
                    record={"task": task, "image": image.name},
                )

    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        lines: dict[str, list[str]] = {}
        for question, prediction in zip(questions, predictions, strict=True):
            response = " ".join(prediction.split())  # a line break or a tab would break the line format
            fields = (question.record["image"], question.text, question.reference, response)
            lines.setdefault(question.record["task"], []).append("\t".join(fields) + "\n")
        for task, rows in lines.items():
            (out / f"{task}.txt").write_text("".join(rows), encoding="utf-8")

    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        return mme.score(mme.load(out))

    def correctness(self, question: Question, prediction: str) -> float:
        return float(mme.parse(prediction) == question.reference.lower())

    def chance(self, questions: Sequence[Question]) -> dict[str, float]:
        tasks = {question.record["task"] for question in questions}
        points = 100 * 1 / 2 + 100 * 1 / 4  # one question right in a half, both of an image in a quarter of the cases
        return {
            "perception": points * len(tasks.intersection(mme.PERCEPTION)),
            "cognition": points * len(tasks.intersection(mme.COGNITION)),
        }
