"""DPG-bench: long prompts, each with yes/no questions that a VQA model answers about the picture; the aggregation.

    dualtoken score dpg --answers FILE.jsonl --csv dpg_bench.csv

Answers are lines `{item_id, image, proposition_id, answer}`; `image` numbers the pictures of a prompt's 2×2 grid from
0, and is 0 where it is absent. A picture's score is the share of its questions with yes, where a question whose
parent counts no counts no itself, in the order of the file. A prompt's is the mean over its pictures, `overall` the
mean over prompts.

`per_category` is the official one: first levels of the questions' tuples, of each prompt's last picture, children of
a no not set to no. `per_category_with_dependencies` is what one expects: all pictures, dependencies applied.
Deviation: the official reader skips the first row of the CSV, and then loses that prompt, whose questions refer to
it.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from eval.files import read_json_lines, read_table

HELP = "DPG-bench: overall and per category from VQA answers, 0-1"
PROTOCOL = "official aggregation: mean over prompts of the mean over pictures; a child of a no counts no"

NUM_OFFICIAL = 1065
_COLUMNS = ("item_id", "proposition_id", "dependency", "tuple")


class Question(NamedTuple):
    parents: list[int]
    category: str  # "entity - whole"


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
        questions[item][proposition] = Question([parent for parent in parents if parent], category)
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


def score(questions: Questions, answers: Answers) -> dict[str, Any]:
    """0–1: `overall`, `per_category` and `per_detailed_category` (official), `per_category_with_dependencies`."""
    official: dict[str, list[float]] = defaultdict(list)
    detailed: dict[str, list[float]] = defaultdict(list)
    dependent: dict[str, list[float]] = defaultdict(list)
    prompts, other_answers = [], 0
    for item, own in questions.items():
        pictures = answers[item]
        last = pictures[max(pictures)]
        scores = []
        for given in pictures.values():
            counted = with_dependencies(own, given)
            scores.append(sum(counted.values()) / len(counted))
            other_answers += sum(answer not in ("yes", "no") for answer in given.values())
            for proposition, value in counted.items():
                dependent[_first_level(own[proposition])].append(value)
        for proposition, question in own.items():
            official[_first_level(question)].append(last[proposition] == "yes")
            detailed[question.category].append(last[proposition] == "yes")
        prompts.append(sum(scores) / len(scores))
    warnings = {
        "answers_neither_yes_nor_no": other_answers,
        "prompts_instead_of_the_official_1065": len(prompts) if len(prompts) != NUM_OFFICIAL else 0,
        "prompts_without_four_pictures": sum(len(answers[item]) != 4 for item in questions),
    }
    return {
        "overall": sum(prompts) / len(prompts),
        "per_category": _means(official),
        "per_detailed_category": _means(detailed),
        "per_category_with_dependencies": _means(dependent),
        "num_prompts": len(prompts),
        "warnings": {name: count for name, count in warnings.items() if count},
    }


def with_dependencies(questions: Mapping[int, Question], answers: Mapping[int, str]) -> dict[int, float]:
    """1 for yes; 0 for any other answer, and below a parent that counts 0 so far, in the order of the file."""
    counted = {proposition: float(answers[proposition] == "yes") for proposition in questions}
    for proposition, question in questions.items():
        if any(counted[parent] == 0 for parent in question.parents):
            counted[proposition] = 0.0
    return counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--answers", required=True, metavar="FILE.jsonl", help="the VQA model's answers")
    parser.add_argument("--csv", required=True, metavar="dpg_bench.csv", help="the official questions")


def run(args: argparse.Namespace) -> dict[str, Any]:
    questions = read_questions(args.csv)
    return score(questions, read_answers(args.answers, questions, args.csv))


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("overall", f"{result['overall']:.4f}"), *((n, f"{v:.4f}") for n, v in result["per_category"].items())]


def _first_level(question: Question) -> str:
    return question.category.split("-")[0].strip()


def _means(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(group) / len(group) for name, group in sorted(values.items())}
