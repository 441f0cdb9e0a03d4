"""Which rows a benchmark has in scores.json of `dualtoken evaluate` (eval/runner.py), in the order they are shown."""

from typing import Any

ROWS = {
    "model": "model",
    "chance": "chance",
    "constant": "constant answer",
    "blind": "without image",
    "ceiling": "ceiling",
}


def headline_figures(task: dict[str, Any]) -> dict[str, float]:
    """The benchmark's most important figure in each row that has it."""
    headline = task["headline"]
    return {row: task[row][headline] for row in ROWS if task.get(row, {}).get(headline) is not None}
