"""DPG-bench: dependencies, pictures and categories by hand, and files that do not fit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import dpg
from eval.dpg_files import Question, read_answers, read_detail, read_questions

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
    questions = read_questions(str(tmp_path / "dpg.csv"))
    return dpg.score(questions, read_answers(str(tmp_path / "a.jsonl"), questions, "dpg.csv"))


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


QUESTIONS = {1: Question([], "entity - whole"), 2: Question([1], "attribute - color"),
             3: Question([1, 2], "relation - spatial")}  # fmt: skip
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


CORNERS = ("(0, 0, 8, 8)", "(8, 0, 16, 8)")  # of the pictures of a grid, as the official code crops them
TEXTS = {("a", 1): "Is there a dog?", ("a", 2): "Is it red?", ("a", 3): "Is it left?", ("b", 1): "Is there a cat?",
         ("c", 1): "Is there a cow?"}  # fmt: skip


def detail(tmp_path, answers, csv=CSV):
    lines = [f"/grids/{item}.png, {CORNERS[i]}, {TEXTS[item, p]}, {answer}\n" for item, i, p, answer in answers]
    (tmp_path / "x_detail.txt").write_text("".join(lines))
    (tmp_path / "dpg.csv").write_text(csv)
    questions = read_questions(str(tmp_path / "dpg.csv"))
    return dpg.score(questions, read_detail(str(tmp_path / "x_detail.txt"), questions, "dpg.csv"))


def test_the_official_codes_own_record_scores_the_same(tmp_path):
    assert detail(tmp_path, ANSWERS) == load(tmp_path, ANSWERS)
    assert detail(tmp_path, ANSWERS[::-1]) == load(tmp_path, ANSWERS)  # ranks write in any order


def test_a_prompt_at_which_the_official_code_failed_is_left_out_and_counted(tmp_path):
    result = detail(tmp_path, ANSWERS[1:])  # the first question is what the official reader skips
    assert result["overall"] == 1 and result["warnings"]["prompts_left_out_as_incomplete"] == 1


def test_a_prompt_that_lacks_a_picture_is_left_out_and_counted(tmp_path):
    """The official code may fail between two pictures: those before are whole, but not all."""
    csv = CSV + "c,t,1,0,entity - whole (cow),Is there a cow?\n"
    answers = [(item, i, 1, "yes") for item in "ab" for i in range(2)] + [("c", 0, 1, "no")]
    answers += [("a", i, number, "yes") for i in range(2) for number in (2, 3)]
    result = detail(tmp_path, answers, csv)
    assert result["overall"] == 1 and result["warnings"]["prompts_left_out_as_incomplete"] == 1


def test_a_record_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="once more"):
        detail(tmp_path, [*ANSWERS, ANSWERS[0]])
    with pytest.raises(ValueError, match="no prompt with an answer to each"):
        detail(tmp_path, ANSWERS[:1])
    questions = read_questions(str(tmp_path / "dpg.csv"))
    for line, message in (("a.png, Is it?, yes", "is not 'PATH"), ("c.png, (0, 0, 8, 8), Is it?, yes", "version")):
        (tmp_path / "bad.txt").write_text(line)
        with pytest.raises(ValueError, match=message):
            read_detail(str(tmp_path / "bad.txt"), questions, "dpg.csv")


def test_a_questions_text_may_hold_commas_and_begin_another(tmp_path):
    texts = ("Is it", "Is it, or not?", "Is it")
    questions = {"a": {number: Question([], "e", text) for number, text in enumerate(texts, start=1)}}
    lines = ("Is it, or not?, no", "Is it, yes", "Is it, maybe")
    (tmp_path / "x.txt").write_text("".join(f"a.png, (0, 0, 8, 8), {line}\n" for line in lines))
    assert read_detail(str(tmp_path / "x.txt"), questions, "csv") == {"a": {0: {2: "no", 1: "yes", 3: "maybe"}}}
