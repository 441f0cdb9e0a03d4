"""scores.json of `dualtoken evaluate` (eval/runner.py): where it lies, and a benchmark's rows in the order shown."""

from pathlib import Path
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


def score_files(folder: Path) -> list[Path]:
    """The scores.json of a folder: of an evaluation, or of a run that has one in eval/ or some in eval/SPLIT/."""
    files = [folder / "scores.json", folder / "eval/scores.json", *sorted(folder.glob("eval/*/scores.json"))]
    return [file for file in files if file.is_file()]
