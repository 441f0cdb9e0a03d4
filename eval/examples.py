"""Answered questions to look at: some right and some wrong of each benchmark, with their pictures beside the text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.images import load_image
from eval.benchmark import Answered
from eval.files import write_json

NUM_OF_A_KIND = 4  # right ones, and as many wrong ones, of each benchmark


def write_examples(answered: Sequence[Answered], out: Path) -> list[dict[str, Any]]:
    """OUT/examples.json and OUT/examples/*.png; `image` is the path relative to OUT. The choice is deterministic."""
    kinds: dict[tuple[str, bool], list[Answered]] = {}
    for entry in answered:
        kinds.setdefault((entry.benchmark.name, entry.correctness >= 0.5), []).append(entry)
    examples: list[dict[str, Any]] = []
    (out / "examples").mkdir(parents=True, exist_ok=True)
    for earlier in (out / "examples").glob("[0-9][0-9][0-9].png"):
        earlier.unlink()
    for (name, is_right), members in kinds.items():
        num_taken = min(NUM_OF_A_KIND, len(members))
        for i in range(num_taken):
            _, question, prediction = members[i * len(members) // num_taken]
            image = f"examples/{len(examples):03d}.png"
            load_image(question.image).save(out / image)
            examples.append(
                {
                    "benchmark": name,
                    "question": question.text,
                    "prediction": prediction,
                    "reference": question.reference,
                    "right": is_right,
                    "image": image,
                }
            )
    write_json(out / "examples.json", examples)
    return examples
