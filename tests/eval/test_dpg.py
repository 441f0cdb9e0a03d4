"""DPG-bench: dependencies, pictures and categories by hand, and files that do not fit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import dpg

CSV = """item_id,text,proposition_id,dependency,tuple,question_natural_language
a,t,1,0,entity - whole (dog),Is there a dog?
a,t,2,1,"attribute - color (dog, red)",Is it red?
a,t,3,"1, 2",relation - spatial (dog),Is it left?
b,t,1,0,entity - whole (cat),Is there a cat?
"""


def load(tmp_path, answers, csv=CSV):
    (tmp_path / "dpg.csv").write_text(csv)
    keys = ("item_id", "image", "proposition_id", "answer")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in answers]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    questions = dpg.read_questions(str(tmp_path / "dpg.csv"))
    return dpg.score(questions, dpg.read_answers(str(tmp_path / "a.jsonl"), questions, "dpg.csv"))


ANSWERS = [("a", 0, 1, "yes"), ("a", 0, 2, "no"), ("a", 0, 3, "yes"),
           ("a", 1, 1, "no"), ("a", 1, 2, "yes"), ("a", 1, 3, "yes"), ("b", 0, 1, "Yes")]  # fmt: skip


def test_a_child_of_a_no_counts_no(tmp_path):
    result = load(tmp_path, ANSWERS)
    assert result["overall"] == pytest.approx(((1 / 3 + 0) / 2 + 1) / 2)
    assert result["per_category"] == {"attribute": 1, "entity": 0.5, "relation": 1}  # last picture, as answered
    assert result["per_category_with_dependencies"] == {"attribute": 0, "entity": pytest.approx(2 / 3), "relation": 0}
    assert result["per_detailed_category"]["attribute - color"] == 1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (ANSWERS[:-1], "no answers for 1 prompts"),
        (ANSWERS[1:], "lacks proposition 1 of 'a', picture 0"),
        ([*ANSWERS, ANSWERS[0]], "twice"),
        ([*ANSWERS, ("c", 0, 1, "yes")], "another version"),
        ([("a", 0, 1, None)], "with a text"),
    ],
)
def test_answers_that_do_not_fit_are_an_error(tmp_path, answers, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, answers)


def test_answers_that_are_neither_are_counted(tmp_path):
    assert load(tmp_path, [*ANSWERS[:-1], ("b", 0, 1, "maybe")])["warnings"]["answers_neither_yes_nor_no"] == 1
    with pytest.raises(ValueError, match="depends on 9"):
        load(tmp_path, [], CSV.replace('"1, 2"', "9"))


QUESTIONS = {1: dpg.Question([], "entity - whole"), 2: dpg.Question([1], "attribute - color"),
             3: dpg.Question([1, 2], "relation - spatial")}  # fmt: skip
PICTURE = st.fixed_dictionaries({proposition: st.sampled_from(["yes", "no", "maybe"]) for proposition in QUESTIONS})


def shares(prompts):
    questions = {f"item {i}": QUESTIONS for i in range(len(prompts))}
    return dpg.score(questions, {f"item {i}": dict(enumerate(pictures)) for i, pictures in enumerate(prompts)})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(PICTURE, min_size=1, max_size=4), min_size=1, max_size=5), st.randoms())
def test_order_and_duplication_change_nothing_and_dependencies_only_cost(prompts, random):
    names = ("overall", "per_category", "per_category_with_dependencies")
    expected = shares(prompts)
    for others in (random.sample(prompts, len(prompts)), prompts * 2):
        assert [shares(others)[name] for name in names] == [pytest.approx(expected[name]) for name in names]
    shuffled = shares([random.sample(pictures, len(pictures)) for pictures in prompts])
    assert shuffled["overall"] == pytest.approx(expected["overall"])
    for given_answers in (picture for pictures in prompts for picture in pictures):
        counted = dpg.with_dependencies(QUESTIONS, given_answers)
        assert all(counted[number] <= (given_answers[number] == "yes") for number in QUESTIONS)
    assert 0 <= expected["overall"] <= 1
