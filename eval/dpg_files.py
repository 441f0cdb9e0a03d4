"""DPG-bench's files: the questions, and the answers about each picture in one of two formats.

The official CSV has a row a question: `item_id, proposition_id, dependency, tuple, question_natural_language`.
Answers are lines `{item_id, image, proposition_id, answer}`, or the `…_detail.txt` that the official code (ELLA's
compute_dpg_bench.py) leaves beside its result, lines `PATH/ITEM.png, (x1, y1, x2, y2), question, answer`.
"""

import re
from collections import defaultdict
from statistics import multimode
from typing import NamedTuple

from eval.files import read_json_lines, read_table, read_text

_COLUMNS = ("item_id", "proposition_id", "dependency", "tuple")
_DETAIL = re.compile(r"(?P<path>.+?), \((?P<box>\d+, \d+, \d+, \d+)\), (?P<rest>.+)")


class Question(NamedTuple):
    parents: list[int]
    category: str  # "entity - whole"
    text: str = ""  # "Is there a dog?"


Questions = dict[str, dict[int, Question]]
Answers = dict[str, dict[int, dict[int, str]]]  # item → picture → proposition → answer


def read_questions(path: str) -> Questions:
    """The official CSV. Raises ValueError."""
    questions: Questions = defaultdict(dict)
    records = read_table(path)
    if missing := [name for name in _COLUMNS if name not in records[0]]:
        raise ValueError(f"{path} lacks the column {', '.join(map(repr, missing))}: this is not dpg_bench.csv")
    for number, record in enumerate(records, start=1):
        item = record["item_id"].strip()
        try:
            proposition = int(float(record["proposition_id"]))
            parents = [int(float(parent)) for parent in record["dependency"].split(",")]
        except ValueError:
            raise ValueError(f"{path} row {number} has a proposition_id or dependency that is no number") from None
        if proposition in questions[item]:
            raise ValueError(f"{path} holds proposition {proposition} of {item!r} twice: remove the duplicate")
        category = record["tuple"].split("(")[0].strip()
        questions[item][proposition] = Question(
            [parent for parent in parents if parent], category, record.get("question_natural_language", "")
        )
    for item, own in questions.items():
        if unknown := [parent for question in own.values() for parent in question.parents if parent not in own]:
            raise ValueError(f"{path}: a question of {item!r} depends on {unknown[0]}, which it does not have")
    return dict(questions)


def read_answers(path: str, questions: Questions, csv: object) -> Answers:
    """Complete: every question of every prompt about every picture of it. Raises ValueError."""
    answers: Answers = defaultdict(lambda: defaultdict(dict))
    for number, row in enumerate(read_json_lines(path), start=1):
        item, image, proposition = str(row.get("item_id")), row.get("image", 0), row.get("proposition_id")
        if not isinstance(row.get("answer"), str) or type(image) is not int or type(proposition) is not int:
            raise ValueError(f"{path} row {number} is not {{item_id, image, proposition_id, answer}} with a text")
        if proposition not in questions.get(item, {}):
            raise ValueError(
                f"{path} row {number}: {csv} has no proposition {proposition} of {item!r}: another version?"
            )
        if proposition in answers[item][image]:
            raise ValueError(f"{path} answers proposition {proposition} of {item!r}, picture {image}, twice")
        answers[item][image][proposition] = row["answer"].strip().lower()
    if missing := [item for item in questions if item not in answers]:
        raise ValueError(f"{path} has no answers for {len(missing)} prompts of {csv} ({missing[0]!r} for one)")
    for item, pictures in answers.items():
        for image, given in pictures.items():
            if unanswered := questions[item].keys() - given.keys():
                raise ValueError(f"{path} lacks proposition {min(unanswered)} of {item!r}, picture {image}")
    return answers


def read_detail(path: str, questions: Questions, csv: object) -> Answers:
    """The official code's own record. A prompt at which that code failed is incomplete there, counts nowhere, and is
    left out here as well: one with fewer questions than the CSV, or fewer pictures than most prompts have. Raises
    ValueError for a line of another format or version, and where no prompt is left.
    """
    if not any(question.text for own in questions.values() for question in own.values()):
        raise ValueError(f"{csv} lacks the column 'question_natural_language', by which {path} names its questions")
    boxes: dict[str, dict[tuple[int, ...], dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        if not (match := _DETAIL.fullmatch(line)):
            raise ValueError(f"{path} row {number} is not 'PATH, (x1, y1, x2, y2), question, answer'")
        item = match["path"].replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
        x1, y1, _, _ = map(int, match["box"].split(", "))
        given = boxes[item][y1, x1]
        asked = [p for p, question in questions.get(item, {}).items() if match["rest"].startswith(question.text + ", ")]
        if not asked:
            raise ValueError(f"{path} row {number} asks what {csv} does not ask about {item!r}: another version?")
        longest = max(len(questions[item][p].text) for p in asked)
        same = [p for p in asked if len(questions[item][p].text) == longest and p not in given]
        if not same:
            raise ValueError(f"{path} row {number} answers a question about {item!r} once more: remove the duplicate")
        given[same[0]] = match["rest"][longest + 2 :].strip().lower()
    answers: Answers = {}
    # It may fail between two pictures of a grid, whose first ones are whole then.
    usual = min(multimode(map(len, boxes.values())), default=0)
    for item, pictures in boxes.items():
        in_order = [pictures[corner] for corner in sorted(pictures)]
        if len(in_order) >= usual and all(given.keys() == questions[item].keys() for given in in_order):
            answers[item] = dict(enumerate(in_order))
    if not answers:
        raise ValueError(f"{path} has no prompt with an answer to each question of {csv}")
    return answers
