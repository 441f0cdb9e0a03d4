"""SEED-Bench: types, ids that repeat, letters; and every file that does not fit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import seed


def question(question_id, type_id, answer="A"):
    choices = {f"choice_{letter}": f"thing {letter}" for letter in "abcd"}
    kind = "image" if type_id < 10 else "video"
    return {"question_id": question_id, "question_type_id": type_id, "data_type": kind, "answer": answer, **choices}


TYPES = {"Scene Understanding": 1, "Text Understanding": 9, "Action Recognition": 10}
QUESTIONS = [question("1", 1), question("2", 1, "B"), question("3", 9, "C"), question("4", 10, "D")]


def load(tmp_path, results, questions=QUESTIONS):
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions, "question_type": TYPES}))
    lines = [json.dumps({"question_id": name, "prediction": text}) for name, text in results]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    return seed.load(str(tmp_path / "q.json"), str(tmp_path / "r.jsonl"))


def test_letters_overall_and_per_type_of_images_alone(tmp_path):
    result = seed.score(*load(tmp_path, [("3", "C. thing c"), ("1", "A"), ("2", "no idea"), ("4", "D")]))
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["per_type"] == {"Scene Understanding": 0.5, "Text Understanding": 1}
    assert result["warnings"] == {
        "unparsed": 1,
        "predictions_for_questions_not_about_images": 1,
        "rows_instead_of_the_official_14233": 3,
    }


def test_the_id_that_stands_twice_takes_two_predictions_or_one(tmp_path):
    twice = [*QUESTIONS, question("1", 1, "B")]
    rest = [("2", "B"), ("3", "C")]
    assert seed.score(*load(tmp_path, [("1", "A"), ("1", "B"), *rest], twice))["accuracy"] == 1
    assert seed.score(*load(tmp_path, [("1", "A"), *rest], twice))["accuracy"] == 3 / 4
    assert seed.score(*load(tmp_path, [(1, "A"), *rest], twice))["num_rows"] == 4  # LLaVA writes numbers


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([("1", "A"), ("2", "B")], "lacks predictions for 1 questions"),
        ([("1", "A"), ("2", "B"), ("3", "C"), ("9", "A")], "lacks 1 ids"),
        ([("1", "A"), ("1", "A"), ("2", "B"), ("3", "C")], "'1' 2 times"),
        ([("1", None)], "with a text"),
    ],
)
def test_results_that_do_not_fit_are_an_error(tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, results)


def test_other_versions_are_an_error(tmp_path):
    for bad, message in (
        ({**QUESTIONS[0], "question_type_id": 27}, "another version"),
        ({**QUESTIONS[0], "data_type": "video"}, "another version"),
        ({**QUESTIONS[0], "answer": "E"}, "from A to D"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, [], [bad])
    with pytest.raises(ValueError, match="no question about an image"):
        load(tmp_path, [], QUESTIONS[3:])


ROWS = st.builds(
    seed.Row, st.sampled_from("xy"), st.just({"A": "cat", "B": "dog"}), st.sampled_from("AB"), st.sampled_from("ABc")
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=12), st.randoms())
def test_order_and_duplication_change_nothing(rows, random):
    expected = seed.score(rows)
    for others in (random.sample(rows, len(rows)), [*rows, *rows]):
        result = seed.score(others)
        assert result["accuracy"] == pytest.approx(expected["accuracy"])
        assert result["per_type"] == pytest.approx(expected["per_type"])
