"""What a score has to be compared with: chance, the best constant answer, and the reference answers themselves."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmark import Answered, Benchmark, Question

_NUM_CONSTANTS = 4  # the most frequent references, tried as the answer to everything


def baselines(benchmark: Benchmark, questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """The rows `chance`, `constant` and `ceiling`, the last two through the very scorer."""

    def figures(predictions: Sequence[str]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            benchmark.write(questions, predictions, Path(folder))
            result = benchmark.score(questions, Path(folder))
        return {name: result[name] for name in benchmark.headlines}

    references = [question.reference for question in questions]
    constants = [text for text, _ in Counter(references).most_common(_NUM_CONSTANTS)]
    rows = [{"answer": text, **figures([text] * len(questions))} for text in constants]
    constant = max(rows, key=lambda row: [row[name] or 0 for name in benchmark.headlines])
    chance = benchmark.chance(questions) or {name: constant[name] for name in benchmark.headlines}
    return {"chance": chance, "constant": constant, "ceiling": figures(references)}


def yes_no_counts(answered: Sequence[Answered]) -> dict[str, float]:
    """Of the yes/no questions: how many, how many of them have the reference yes, the sum of their correctness."""
    asked = [entry for entry in answered if entry.question.is_yes_no]
    return {
        "questions": len(asked),
        "references_yes": sum(entry.question.reference.lower() == "yes" for entry in asked),
        "correct": sum(entry.correctness for entry in asked),
    }


def yes_no_accuracy(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all yes/no questions, whichever benchmark (its figures, with `yes_no`) they come from; None without any.

    `yes_no_chance` is what the more frequent of the two references would get as the answer to everything.
    """
    counts = [task["yes_no"] for task in tasks if "yes_no" in task]
    num, yes, correct = (sum(count[key] for count in counts) for key in ("questions", "references_yes", "correct"))
    return {
        "yes_no_accuracy": correct / num if num else None,
        "yes_no_chance": max(yes, num - yes) / num if num else None,
        "num_yes_no_questions": num,
    }
