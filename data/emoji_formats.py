"""Writes questions about pictures in the official file formats of VQAv2, MME, POPE, MMBench and LLaVA-1.5.

Pictures go under COCO's file names, `images/COCO_{split}_{image_id:012d}.png`. Formats as in the benchmarks' own files.
"""

import csv
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.emoji_questions import Choice, Question

YES_NO_REQUEST = " Please answer yes or no."
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTERS = "ABCD"
NUM_ANSWERS = 10
ROTATION = 1_000_000

MME_TASKS = {"existence": "subject", "count": "count", "color": "color", "scene": "category", "artwork": "style"}
"""Official task → kind of question. The other nine tasks have no counterpart in emoji."""

_MMBENCH_CATEGORIES = {  # kind of question → the official category and l2-category that it resembles
    "subject": ("image_topic", "coarse_perception"),
    "category": ("image_scene", "coarse_perception"),
    "style": ("image_style", "coarse_perception"),
    "skin_tone": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "color": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "count": ("object_localization", "finegrained_perception (instance-level)"),
}
_QUESTION_TYPES = {"subject": "what is in the", "color": "what color is the", "count": "how many people are in"}


@dataclass(frozen=True)
class Picture:
    key: str
    image_id: int
    png: bytes


def picture_name(split: str, image_id: int) -> str:
    return f"COCO_{split}_{image_id:012d}.png"


def write_pictures(folder: Path, split: str, pictures: Sequence[Picture]) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / "images" / picture_name(split, picture.image_id)).write_bytes(picture.png)


def write_vqav2(folder: Path, split: str, asked: Sequence[tuple[Picture, Sequence[Question]]]) -> dict[str, int]:
    """Returns the number of questions per answer type."""
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture, about in asked:
        for number, question in enumerate(about):
            ids: dict[str, Any] = {"image_id": picture.image_id, "question_id": picture.image_id * 1000 + number}
            questions.append({**ids, "question": question.text})
            annotations.append(
                {
                    **ids,
                    "question_type": question_type(question),
                    "answer_type": question.answer_type,
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
                        for number, answer in enumerate(ten_answers(question), start=1)
                    ],
                }
            )
    head = {
        "info": {"description": "Emoji questions in the format of VQAv2", "version": "1.0"},
        "license": {"name": "MIT and Apache-2.0, as the pictures", "url": ""},
        "data_type": "mscoco",
        "data_subtype": split,
    }
    task = {"task_type": "Open-Ended"}
    folder = folder / "vqav2"
    write_json(folder / f"v2_OpenEnded_mscoco_{split}_questions.json", {**head, **task, "questions": questions})
    write_json(folder / f"v2_mscoco_{split}_annotations.json", {**head, "annotations": annotations})
    return dict(Counter(annotation["answer_type"] for annotation in annotations))


def question_type(question: Question) -> str:
    """One of the official types: the first words of the question."""
    if question.answer_type == "yes/no":
        words = question.text.lower().split()
        return " ".join(words[:3] if words[:3] == ["is", "there", "a"] else words[:2])
    return _QUESTION_TYPES.get(question.kind, "what is the")


def ten_answers(question: Question) -> list[str]:
    """Ten people would not all use one name: four of them say the first alias, which is then fully right as well."""
    other = question.also_right[0] if question.also_right else question.answer
    return [question.answer] * (NUM_ANSWERS - 4) + [other] * 4


def write_mme(folder: Path, split: str, task: str, asked: Sequence[tuple[Picture, Question, Question]]) -> None:
    """Two questions per picture, one of them to be denied."""
    folder = folder / "mme" / task
    write_pictures(folder, split, [picture for picture, *_ in asked])
    for picture, *questions in asked:
        lines = [f"{question.text}{YES_NO_REQUEST}\t{question.answer.capitalize()}\n" for question in questions]
        path = folder / "questions_answers_YN" / Path(picture_name(split, picture.image_id)).with_suffix(".txt").name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")


def write_pope(folder: Path, split: str, negatives: str, asked: Sequence[tuple[Picture, Question]]) -> None:
    rows = [
        {
            "question_id": number,
            "image": picture_name(split, picture.image_id),
            "text": question.text,
            "label": question.answer,
        }
        for number, (picture, question) in enumerate(asked, start=1)
    ]
    path = folder / "pope" / f"coco_pope_{negatives}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_mmbench(folder: Path, split: str, asked: Sequence[tuple[Picture, Choice]]) -> None:
    """Base rows hold the picture; the rotations (index + k·1e6) name the base row in its place, as officially."""
    path = folder / "mmbench" / "mmbench.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["index", "question", "hint", *LETTERS, "answer", "category", "image", "source", "l2-category"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*columns, "comment", "split"], delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        for by in range(4):
            for base, (picture, choice) in enumerate(asked):
                turned = choice.rotated(by)
                category, l2_category = _MMBENCH_CATEGORIES[choice.kind]
                writer.writerow(
                    {
                        "index": by * ROTATION + base,
                        "question": turned.text,
                        **dict(zip(LETTERS, turned.options, strict=True)),
                        "answer": LETTERS[turned.answer],
                        "category": category,
                        "image": base if by else b64encode(picture.png).decode(),
                        "source": "emoji",
                        "l2-category": l2_category,
                        "split": split,
                    }
                )


def conversation(key: str, number: int, turns: Sequence[Question | Choice]) -> dict[str, Any]:
    """A LLaVA-1.5 record: the image before the first question, the suffix after every one."""
    messages = []
    for turn in turns:
        if isinstance(turn, Choice):
            options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, turn.options, strict=True))
            question, answer = turn.text + options + OPTION_LETTER, LETTERS[turn.answer]
        else:
            question, answer = turn.text + SHORT_ANSWER, turn.answer
        messages += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    messages[0]["value"] = "<image>\n" + messages[0]["value"]
    return {"id": f"{key}-{number}", "image": key, "conversations": messages}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
