"""What a score has to be compared with: chance, the best constant answer, and the reference answers themselves."""

import tempfile
from collections import Counter
from collections.abc import Sequence
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


def yes_no_accuracy(answered: Sequence[Answered]) -> dict[str, Any]:
    """Over all yes/no questions, whichever benchmark they come from; None where there are none.

    `yes_no_chance` is what the more frequent of the two references would get as the answer to everything.
    """
    asked = [entry for entry in answered if entry.question.is_yes_no]
    scores = [entry.correctness for entry in asked]
    yes = sum(entry.question.reference.lower() == "yes" for entry in asked)
    return {
        "yes_no_accuracy": sum(scores) / len(scores) if scores else None,
        "yes_no_chance": max(yes, len(scores) - yes) / len(scores) if scores else None,
        "num_yes_no_questions": len(scores),
    }
