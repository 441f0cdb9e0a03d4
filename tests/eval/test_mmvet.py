"""MM-Vet: the totals of a grade file by hand, the submission, and files that do not fit."""

import argparse
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import mmvet

GRADES = {
    "v1_0": {"model": ["gpt-4"] * 2, "content": ["1.0", "0.5"], "score": [1.0, 0.5], "capability": ["ocr", "math"]},
    "v1_1": {"model": ["gpt-4"] * 2, "content": ["0.0", "x"], "score": [0.0, 0.0], "capability": ["ocr"]},
}


def run(**options):
    names = ("grades", "questions", "answers", "submission")
    return mmvet.run(argparse.Namespace(**{name: options.get(name) for name in names}))


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_total_std_and_capabilities_by_hand(tmp_path):
    result = run(grades=write(tmp_path / "g.json", GRADES))
    assert result["runs"] == [50, 25]
    assert (result["total"], result["std"]) == (37.5, 12.5)
    assert result["per_capability"] == {"math": 75, "ocr": 37.5}
    assert result["per_combination"] == {"math_ocr": 75, "ocr": 0}
    assert result["warnings"]["grades_whose_content_is_no_number"] == 1
    assert result["warnings"]["questions_instead_of_the_official_218"] == 2


def test_capabilities_of_the_official_questions(tmp_path):
    bare = {name: {"score": grade["score"]} for name, grade in GRADES.items()}
    grades = write(tmp_path / "g.json", bare)
    questions = write(tmp_path / "q.json", {name: {"capability": ["rec"]} for name in GRADES})
    assert run(grades=grades, questions=questions)["per_capability"] == {"rec": 37.5}
    assert run(grades=grades)["warnings"]["questions_without_capability"] == 2
    with pytest.raises(ValueError, match="lacks 1 of the ids"):
        run(grades=grades, questions=write(tmp_path / "q.json", {"v1_0": {"capability": ["rec"]}}))


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        ({**GRADES, "v1_2": {"score": [1.0]}}, "between 1 and 2 runs"),
        ({"v1_0": {"score": [2]}}, "no number from 0 to 1"),
        ({"v1_0": {"score": [True]}}, "no number from 0 to 1"),
        ({"v1_0": "an answer"}, "not graded"),
        ('{"v1_0": {"score": [1]}, "v1_0": {"score": [0]}}', "'v1_0' twice"),
        ('{"v1_0": {"sc', "not complete JSON"),
        ([], "not a table"),
    ],
)
def test_grades_that_do_not_fit_are_an_error(tmp_path, grades, message):
    with pytest.raises(ValueError, match=message):
        run(grades=write(tmp_path / "g.json", grades))


def test_a_submission_is_written_and_never_graded(tmp_path):
    lines = [{"question_id": "v1_10", "answer": "b"}, {"question_id": 2, "text": "a"}]
    answers = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    result = run(answers=answers, submission=str(tmp_path / "out.json"))
    assert "total" not in result and mmvet.table(result)[0][1].startswith("not graded")
    assert list(json.loads((tmp_path / "out.json").read_text()).items()) == [("v1_2", "a"), ("v1_10", "b")]
    with pytest.raises(ValueError, match="v1_2 twice"):
        mmvet.submission([{"question_id": 2, "answer": "a"}, {"question_id": "v1_2", "answer": "b"}], "f")


NAMES = st.lists(st.sampled_from(["ocr", "math", "rec"]), min_size=1, unique=True)
ANSWERS = st.tuples(st.lists(st.floats(0, 1), min_size=2, max_size=2), NAMES)  # two runs


def totals(answers):
    grades = {f"v1_{i}": {"score": scores} for i, (scores, _) in enumerate(answers)}
    return mmvet.score(grades, {f"v1_{i}": names for i, (_, names) in enumerate(answers)})


@settings(max_examples=50, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=8), st.randoms())
def test_order_and_duplication_change_nothing(answers, random):
    expected = totals(answers)
    assert 0 <= min(expected["runs"]) <= expected["total"] + 1e-9 and expected["total"] <= max(expected["runs"]) + 1e-9
    assert all(0 <= value <= 100 for value in expected["per_capability"].values()) and expected["std"] <= 50
    for others in (random.sample(answers, len(answers)), answers * 2, [(s[::-1], names) for s, names in answers]):
        result = totals(others)
        for name in ("total", "std", "per_capability", "per_combination"):
            assert result[name] == pytest.approx(expected[name])
