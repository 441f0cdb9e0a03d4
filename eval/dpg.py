"""DPG-bench: long prompts, each with yes/no questions that a VQA model answers about the picture; the aggregation.

    dualtoken score dpg --answers FILE.jsonl|…_detail.txt --csv dpg_bench.csv

Answers are lines `{item_id, image, proposition_id, answer}`; `image` numbers the pictures of a prompt's 2×2 grid from
0, and is 0 where it is absent. The official code's `_detail.txt` is read as well (eval/dpg_files.py).

A picture's score is the share of its questions with yes, where a question whose parent counts no counts no itself, in
the order of the file. A prompt's is the mean over its pictures, `overall` the mean over prompts.

`per_category` is the official one: first levels of the questions' tuples, of each prompt's last picture, children of
a no not set to no. `per_category_with_dependencies` is what one expects: all pictures, dependencies applied.
Deviation: the official reader skips the first row of the CSV, and then loses that prompt, whose questions refer to
it.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from eval.dpg_files import Answers, Question, Questions, read_answers, read_detail, read_questions

HELP = "DPG-bench: overall and per category from VQA answers, 0-1"
PROTOCOL = "official aggregation: mean over prompts of the mean over pictures; a child of a no counts no"

NUM_OFFICIAL = 1065


def score(questions: Questions, answers: Answers) -> dict[str, Any]:
    """Over the prompts with answers, 0–1: `overall`, `per_category` and `per_detailed_category` (official),
    `per_category_with_dependencies`."""
    official: dict[str, list[float]] = defaultdict(list)
    detailed: dict[str, list[float]] = defaultdict(list)
    dependent: dict[str, list[float]] = defaultdict(list)
    prompts, other_answers = [], 0
    for item, pictures in answers.items():
        own = questions[item]
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
        "prompts_left_out_as_incomplete": len(questions) - len(answers),
        "prompts_instead_of_the_official_1065": len(prompts) if len(prompts) != NUM_OFFICIAL else 0,
        "prompts_without_four_pictures": sum(len(answers[item]) != 4 for item in answers),
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
    parser.add_argument("--answers", required=True, metavar="FILE", help="the VQA model's, .jsonl or the official .txt")
    parser.add_argument("--csv", required=True, metavar="dpg_bench.csv", help="the official questions")


def run(args: argparse.Namespace) -> dict[str, Any]:
    questions = read_questions(args.csv)
    read = read_detail if args.answers.endswith(".txt") else read_answers
    return score(questions, read(args.answers, questions, args.csv))


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("overall", f"{result['overall']:.4f}"), *((n, f"{v:.4f}") for n, v in result["per_category"].items())]


def _first_level(question: Question) -> str:
    return question.category.split("-")[0].strip()


def _means(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(group) / len(group) for name, group in sorted(values.items())}
