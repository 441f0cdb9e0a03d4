"""MME: one hand-computed case per rule of the protocol."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import mme
from eval.mme import Row, parse


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes", "yes"),
        ("YES.", "yes"),
        ("No", "no"),
        ("no, it is not", "no"),
        ("Nothing", "no"),
        ("know", "no"),
        (" yes", "yes"),  # the first four characters are " yes"
        ("  yes", "other"),  # … and here "  ye": leading spaces count
        ("  no", "no"),
        ("   no", "other"),
        ("eyes", "yes"),
        ("not yes", "no"),
        ("Maybe yes", "other"),
        ("It is", "other"),
        ("ye", "other"),
        ("", "other"),
    ],
)
def test_yes_or_no_within_the_first_four_characters_unstripped(response, answer):
    assert parse(response) == answer


def rows(*answers, image="a.jpg"):
    """Pairs (reference, response), two per image."""
    return [Row(f"{i // 2}{image}", f"question {i}", *answer) for i, answer in enumerate(answers)]


def test_task_score_is_accuracy_plus_accuracy_of_whole_images():
    # First image both right, second one right: accuracy 3/4, accuracy+ 1/2.
    figures = mme.score_task(rows(("Yes", "yes"), ("No", "no"), ("Yes", "yes"), ("No", "yes")))
    assert figures["score"] == 100 * 3 / 4 + 100 * 1 / 2
    assert (figures["accuracy"], figures["accuracy_plus"], figures["num_questions"]) == (0.75, 0.5, 4)


def test_an_answer_that_is_neither_counts_as_wrong_and_is_counted():
    result = mme.score({"count": rows(("Yes", "three"), ("No", "perhaps"))})
    assert result["tasks"] == {"count": 0.0}
    assert result["warnings"]["other_answers"] == 2


def test_perception_sums_ten_tasks_and_cognition_four():
    perfect = rows(("Yes", "Yes"), ("No", "No"))
    result = mme.score({task: perfect for task in mme.TASKS})
    assert (result["perception"], result["cognition"]) == (2000, 800)
    assert (result["perception_maximum"], result["cognition_maximum"]) == (2000, 800)
    assert list(result["tasks"]) == [
        *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
        *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
    ]
    assert result["warnings"] == {}


def test_missing_tasks_are_named_and_a_sum_over_none_is_no_zero():
    result = mme.score({"color": rows(("Yes", "Yes"), ("No", "No"))})
    assert (result["perception"], result["perception_maximum"]) == (200, 200)
    assert result["cognition"] is None
    assert len(result["warnings"]["missing_tasks"]) == 13


def test_always_yes_scores_50_points():
    result = mme.score({"scene": rows(*[("Yes", "yes"), ("No", "yes")] * 5)})
    assert result["tasks"] == {"scene": 50.0}


PAIRS = st.lists(
    st.tuples(st.tuples(st.just("Yes"), st.text(max_size=6)), st.tuples(st.just("No"), st.text(max_size=6))),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS, seed=st.randoms())
def test_order_of_images_and_of_an_image_s_lines_and_duplication_change_nothing(pairs, seed):
    one = mme.score_task(rows(*[line for pair in pairs for line in pair]))
    shuffled = [tuple(seed.sample(pair, 2)) for pair in seed.sample(pairs, len(pairs))]
    assert mme.score_task(rows(*[line for pair in shuffled for line in pair])) == pytest.approx(one)
    twice = mme.score_task(rows(*[line for pair in [*pairs, *pairs] for line in pair]))
    assert twice["score"] == pytest.approx(one["score"])


def test_files_are_read_without_stripping(tmp_path):
    (tmp_path / "OCR.txt").write_text("x.jpg\tIs it?\tYes\t  yes\nx.jpg\tIs it not?\tNo\t\n")
    (tmp_path / "readme.txt").write_text("not a task")
    assert mme.load(tmp_path) == {"OCR": [Row("x.jpg", "Is it?", "Yes", "  yes"), Row("x.jpg", "Is it not?", "No", "")]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.jpg\tQ\tYes\n", "line 1 has 3 fields"),
        ("x.jpg\tQ\tYes\tyes\tindeed\n", "line 1 has 5 fields"),
        ("x.jpg\tQ\tMaybe\tyes\n", "'Maybe', which is neither"),
        ("x.jpg\tQ\tYes\tyes\n", "does not have two consecutive lines"),
        ("x.jpg\tQ\tYes\tyes\ny.jpg\tQ\tNo\tno\n", "does not have two consecutive lines"),
        ("x.jpg\tQ\tYes\tyes\n\nx.jpg\tR\tNo\tno\n", "line 2 has 1 fields"),
        ("", "is empty"),
    ],
)
def test_broken_task_files_are_an_error(tmp_path, text, message):
    (tmp_path / "count.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        mme.load(tmp_path)


def test_a_folder_without_any_task_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no MME submission"):
        mme.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        mme.load(tmp_path / "nowhere")


def test_repeated_questions_are_counted():
    line = Row("x.jpg", "Q", "Yes", "yes")
    assert mme.score({"count": [line, line]})["warnings"]["repeated_questions"] == 1
