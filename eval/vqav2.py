"""VQAv2: accuracy against ten human answers (paper Tab. 5; rules of the official vqaEval.py).

1. Line breaks and tabs become spaces, ends are stripped, in prediction and references.
2. Only where the references are not all the same string, prediction and references are normalised (`normalise`).
3. A question scores the mean over its references of min(1, matches among the *other* references / 3). "Other" means
   that the whole answer record differs, so that two equal answers of two people (`answer_id`) are two matches.

The contraction map is that of the official code (BSD 2-Clause): see eval/contractions.py and NOTICE.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.contractions import CONTRACTIONS
from eval.files import by_id, read_json, require_same_ids

HELP = "VQAv2: accuracy against ten answers, 0-100"
PROTOCOL = "official vqaEval.py: leave-one-out over the references, min(1, matches / 3)"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# Officially `(?!<=\d)(\.)(?!\d)`: the first group was meant to look behind, but never fails as written.
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # the official code passes re.UNICODE, whose value is 32, where the count of substitutions goes
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")
_NUM_REFERENCES = 10


def clean(text: str) -> str:
    """Step 1."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 18)  # answers repeat: 2 million references of the validation split hold 0.1 million strings
def normalise(text: str) -> str:
    """Step 2: punctuation, periods, lower case, number words, articles, contractions; in this order."""
    out = text
    delete_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    for mark in _PUNCTUATION:
        if mark in text:
            # Both conditions read the text as it came, not as earlier marks have left it.
            delete = delete_all or f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if delete else " ")
    out = _PERIOD.sub("", out, count=_MAX_PERIODS)
    words = (_DIGITS.get(word, word) for word in out.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(prediction: str, references: Sequence[Mapping[str, Any]]) -> float:
    """The score in [0, 1] of one prediction against its answer records `{answer, answer_id, …}`."""
    prediction = clean(prediction)
    answers = [clean(record["answer"]) for record in references]
    if len(set(answers)) > 1:
        prediction = normalise(prediction)
        answers = [normalise(answer) for answer in answers]
    pairs = zip(references, answers, strict=True)
    matches = [{**record, "answer": answer} for record, answer in pairs if answer == prediction]
    # A record that matches sees those matches that are not equal to it in all fields, any other record sees them all.
    others_of_matches = [sum(other != match for other in matches) for match in matches]
    others = [*others_of_matches, *[len(matches)] * (len(answers) - len(matches))]
    return sum(min(1.0, count / 3) for count in others) / len(answers)


def read_annotations(questions_path: str | Path, annotations_path: str | Path) -> list[dict[str, Any]]:
    """The annotations, checked: each has references, and its question about the same image in the questions file."""
    questions = by_id(_entries(questions_path, "questions"), "question_id", questions_path)
    annotations = by_id(_entries(annotations_path, "annotations"), "question_id", annotations_path)
    for question_id, annotation in annotations.items():
        where = f"{annotations_path} question_id {question_id!r}"
        if question_id not in questions:
            raise ValueError(f"{where} is not in {questions_path}: both must be of the same version and split")
        for key in ("question_type", "answer_type"):
            if not isinstance(annotation.get(key), str):
                raise ValueError(f"{where} has no text in {key!r}: this is not the v2 annotation format")
        answers = annotation.get("answers")
        if not isinstance(answers, list) or not answers:
            raise ValueError(f"{where} has no reference answers: a split without public answers cannot be scored here")
        if not all(isinstance(record, dict) and isinstance(record.get("answer"), str) for record in answers):
            raise ValueError(f"{where} has a reference without a text in 'answer'")
        if len({repr(record.get("answer_id")) for record in answers}) < len(answers):
            raise ValueError(f"{where} has references without an answer_id each, by which equal answers are told apart")
        if annotation.get("image_id", image_id := questions[question_id].get("image_id")) != image_id:
            raise ValueError(f"{where} is about another image than in {questions_path}: the versions differ")
    return list(annotations.values())


def read_results(path: str | Path) -> dict[Any, str]:
    """`[{question_id, answer}]` → `{question_id: answer}`."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not a list of {{question_id, answer}}, as a results file must be")
    results = by_id(rows, "question_id", path)
    for question_id, row in results.items():
        if not isinstance(row.get("answer"), str):
            raise ValueError(f"{path} question_id {question_id!r} has no text in 'answer'")
    return {question_id: row["answer"] for question_id, row in results.items()}


def load(
    questions_path: str | Path, annotations_path: str | Path, results_path: str | Path
) -> tuple[list[dict[str, Any]], dict[Any, str]]:
    """Annotations and predictions of the same questions."""
    annotations = read_annotations(questions_path, annotations_path)
    predictions = read_results(results_path)
    require_same_ids((row["question_id"] for row in annotations), predictions, annotations_path, results_path)
    return annotations, predictions


def score(annotations: Sequence[Mapping[str, Any]], predictions: Mapping[Any, str]) -> dict[str, Any]:
    """Accuracies 0–100: `overall`, `per_answer_type`, `per_question_type`, `per_question`."""
    per_question: dict[str, float] = {}
    per_answer_type: dict[str, list[float]] = defaultdict(list)
    per_question_type: dict[str, list[float]] = defaultdict(list)
    for annotation in annotations:
        question_id = annotation["question_id"]
        value = 100 * accuracy(predictions[question_id], annotation["answers"])
        per_question[str(question_id)] = value
        per_answer_type[annotation["answer_type"]].append(value)
        per_question_type[annotation["question_type"]].append(value)
    warnings = {
        "empty_answers": sum(not clean(predictions[row["question_id"]]) for row in annotations),
        "questions_without_ten_references": sum(len(row["answers"]) != _NUM_REFERENCES for row in annotations),
    }
    return {
        "overall": _mean(list(per_question.values())),
        "per_answer_type": {name: _mean(values) for name, values in sorted(per_answer_type.items())},
        "per_question_type": {name: _mean(values) for name, values in sorted(per_question_type.items())},
        "num_questions": len(per_question),
        "warnings": {name: count for name, count in warnings.items() if count},
        "per_question": per_question,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", required=True, metavar="Q.json", help="v2_OpenEnded_mscoco_*_questions.json")
    parser.add_argument("--annotations", required=True, metavar="A.json", help="v2_mscoco_*_annotations.json")
    parser.add_argument("--results", required=True, metavar="R.json", help="predictions, [{question_id, answer}]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return score(*load(args.questions, args.annotations, args.results))


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    types = [(f"answer type {name}", f"{value:.2f}") for name, value in result["per_answer_type"].items()]
    return [("overall", f"{result['overall']:.2f}"), *types]


def _entries(path: str | Path, key: str) -> list[dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
        raise ValueError(f"{path} has no list {key!r}: this is not a VQAv2 {key} file")
    return content[key]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
