"""Writes questions about pictures in the official file formats of SEED-Bench (images) and MM-Vet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.emoji_formats import LETTERS, Picture, picture_name, write_json
from data.emoji_questions import Choice, Question

SEED_TYPES = {  # the official names and numbers of the types about images
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Attributes": 3,
    "Instance Location": 4,
    "Instances Counting": 5,
    "Spatial Relation": 6,
    "Instance Interaction": 7,
    "Visual Reasoning": 8,
    "Text Understanding": 9,
}
_SEED_TYPE = {
    "subject": "Instance Identity",
    "category": "Scene Understanding",
    "style": "Scene Understanding",
    "skin_tone": "Instance Attributes",
    "color": "Instance Attributes",
    "count": "Instances Counting",
}
"""Kind of question → the official type that it resembles."""

_CAPABILITIES = {"subject": ["rec", "know"], "category": ["rec", "know"], "count": ["rec", "math"]}


def write_seed(folder: Path, split: str, asked: Sequence[tuple[Picture, Choice]]) -> int:
    """The pictures are those of the split's `images/`. Returns the number of questions."""
    rows = [
        {
            "question_id": str(number),
            "question_type_id": SEED_TYPES[_SEED_TYPE[choice.kind]],
            "data_type": "image",
            "data_id": picture_name(split, picture.image_id),
            "question": choice.text,
            **{f"choice_{letter.lower()}": text for letter, text in zip(LETTERS, choice.options, strict=True)},
            "answer": LETTERS[choice.answer],
        }
        for number, (picture, choice) in enumerate(asked)
    ]
    write_json(folder / "seed" / "SEED-Bench.json", {"questions": rows, "question_type": SEED_TYPES})
    return len(rows)


def write_mmvet(folder: Path, split: str, asked: Sequence[tuple[Picture, Question]]) -> int:
    """Alternative answers are joined by <OR>, as officially. Returns the number of questions."""
    records: dict[str, dict[str, Any]] = {
        f"v1_{number}": {
            "imagename": picture_name(split, picture.image_id),
            "question": question.text,
            "answer": "<OR>".join([question.answer, *question.also_right]),
            "capability": _CAPABILITIES.get(question.kind, ["rec"]),
            "imagesource": "emoji",
        }
        for number, (picture, question) in enumerate(asked)
    }
    write_json(folder / "mmvet" / "mm-vet.json", records)
    return len(records)
