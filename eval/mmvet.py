"""MM-Vet: open questions that GPT-4 grades (paper Tab. 5). Grading is remote; nothing here guesses a grade.

    dualtoken score mmvet --answers FILE.jsonl --submission OUT.json     the file for the official grader: not graded
    dualtoken score mmvet --grades FILE.json --questions mm-vet.json     the total of grades that the user brings

A grade file is the official evaluator's, `{"v1_0": {model: […], content: […], score: […]}}`, a score in [0, 1] for
each run. Capabilities stand in the official mm-vet.json (--questions), or in the grade file as `capability`.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean, pstdev
from typing import Any

from eval.files import read_json, read_json_lines, require_same_ids, write_json

HELP = "MM-Vet: total of a grade file, 0-100; or writes the submission, not graded"
PROTOCOL = "100 · mean of the given grades per run; mean and population deviation over runs"
NOT_GRADED = "not graded: GPT-4 grades MM-Vet; nothing here does"

NUM_OFFICIAL = 218
_ANSWER_KEYS = ("answer", "prediction", "text")


def read_grades(path: str) -> dict[str, dict[str, Any]]:
    """`{id: {score: [float], …}}`, checked: as many runs for each, scores in [0, 1]."""
    grades = read_json(path, unique_keys=True)
    if not isinstance(grades, dict) or not grades:
        raise ValueError(f"{path} is not a table {{id: {{model, content, score}}}}: give the grader's file")
    lengths = set()
    for name, grade in grades.items():
        scores = grade.get("score") if isinstance(grade, dict) else None
        if not isinstance(scores, list) or not scores:
            raise ValueError(f"{path} {name!r} has no list 'score': it is not graded, or not the grader's file")
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in scores):
            raise ValueError(f"{path} {name!r} has a score that is no number from 0 to 1: {scores!r}")
        lengths.add(len(scores))
    if len(lengths) > 1:
        raise ValueError(f"{path} holds between {min(lengths)} and {max(lengths)} runs: grade every answer as often")
    return grades


def read_capabilities(path: str) -> dict[str, list[str]]:
    """The official questions `{id: {capability: [name]}}`."""
    questions = read_json(path, unique_keys=True)
    if not isinstance(questions, dict) or not questions:
        raise ValueError(f"{path} is not a table of questions: give mm-vet.json")
    return {name: _capability(row, path, name) for name, row in questions.items()}


def score(grades: Mapping[str, Mapping[str, Any]], capabilities: Mapping[str, list[str]]) -> dict[str, Any]:
    """0–100: `total`, `std` over runs, `runs`, `per_capability`, `per_combination` of capabilities."""
    num_runs = len(next(iter(grades.values()))["score"])
    runs = [100 * fmean(grade["score"][i] for grade in grades.values()) for i in range(num_runs)]
    single: dict[str, list[float]] = defaultdict(list)
    combined: dict[str, list[float]] = defaultdict(list)
    for name, names in capabilities.items():
        value = 100 * fmean(grades[name]["score"])
        for capability in sorted(set(names)):
            single[capability].append(value)
        combined["_".join(sorted(set(names)))].append(value)
    warnings: dict[str, Any] = {
        "questions_without_capability": len(grades) - len(capabilities),
        "grades_whose_content_is_no_number": sum(map(_unreadable, grades.values())),
        "questions_instead_of_the_official_218": len(grades) if len(grades) != NUM_OFFICIAL else 0,
    }
    return {
        "total": fmean(runs),
        "std": pstdev(runs),
        "runs": runs,
        "per_capability": {name: fmean(values) for name, values in sorted(single.items())},
        "per_combination": {name: fmean(values) for name, values in sorted(combined.items())},
        "graders": sorted({str(model) for grade in grades.values() for model in _listed(grade.get("model"))}),
        "num_questions": len(grades),
        "warnings": {name: value for name, value in warnings.items() if value},
    }


def submission(rows: list[dict[str, Any]], path: object) -> dict[str, str]:
    """Lines `{question_id, answer}` (an id is `v1_N` or N) → `{"v1_N": text}`, in the order of N."""
    answers: dict[int, str] = {}
    for number, row in enumerate(rows, start=1):
        found = re.fullmatch(r"(?:v1_)?(\d+)", str(row.get("question_id")))
        text = next((row[key] for key in _ANSWER_KEYS if key in row), None)
        if not found or not isinstance(text, str):
            raise ValueError(f"{path} row {number} is not {{question_id, answer}} with an id v1_N and a text")
        if int(found[1]) in answers:
            raise ValueError(f"{path} holds question_id v1_{int(found[1])} twice: remove the duplicate")
        answers[int(found[1])] = text
    return {f"v1_{number}": answers[number] for number in sorted(answers)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grades", metavar="FILE.json", help="the official grader's output")
    parser.add_argument("--questions", metavar="mm-vet.json", help="the official questions, for capabilities")
    parser.add_argument("--answers", metavar="FILE.jsonl", help="answers to submit, {question_id, answer} a line")
    parser.add_argument("--submission", metavar="OUT.json", help="where to write the file for the official grader")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.answers and args.submission and not args.grades:
        return _submit(args)
    if not args.grades or args.answers or args.submission:
        raise ValueError(
            "give --grades FILE to aggregate, or --answers FILE and --submission OUT to write a submission"
        )
    grades = read_grades(args.grades)
    if args.questions:
        capabilities = read_capabilities(args.questions)
        require_same_ids(capabilities, grades, args.questions, args.grades)
    else:
        known = {name: row for name, row in grades.items() if "capability" in row}
        capabilities = {name: _capability(row, args.grades, name) for name, row in known.items()}
    return score(grades, capabilities)


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    if result.get("status") == NOT_GRADED:
        return [("MM-Vet", NOT_GRADED), ("answers", str(result["num_questions"])), ("written to", result["submission"])]
    capabilities = [(name, f"{value:.1f}") for name, value in result["per_capability"].items()]
    return [("total", f"{result['total']:.1f}"), ("std", f"{result['std']:.1f}"), *capabilities]


def _submit(args: argparse.Namespace) -> dict[str, Any]:
    answers = submission(read_json_lines(args.answers), args.answers)
    if args.questions:
        require_same_ids(read_capabilities(args.questions), answers, args.questions, args.answers)
    write_json(args.submission, answers)
    warnings = {
        "empty_answers": sum(not text.strip() for text in answers.values()),
        "answers_instead_of_the_official_218": len(answers) if len(answers) != NUM_OFFICIAL else 0,
    }
    return {
        "status": NOT_GRADED,
        "submission": str(args.submission),
        "num_questions": len(answers),
        "warnings": {name: count for name, count in warnings.items() if count},
    }


def _capability(row: Any, path: str, name: str) -> list[str]:
    names = row.get("capability") if isinstance(row, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise ValueError(f"{path} {name!r} has no list of names in 'capability': this is not the official format")
    return names


def _unreadable(grade: Mapping[str, Any]) -> int:
    """Answers of the grader that are no number: it then wrote a score of 0."""
    return sum(
        not re.fullmatch(r"\d*\.?\d+|\d+\.", str(text).strip().split(" ")[0]) for text in _listed(grade.get("content"))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
