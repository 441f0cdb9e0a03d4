"""POPE: one hand-computed case per rule of the protocol."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import pope
from eval.pope import Row, parse


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("No, there is not.", "no"),
        ("no", "no"),
        ("There is not one", "no"),
        ("Yes. There is no cat", "yes"),  # only what stands before the first period
        ("N,o", "no"),  # commas are removed, not replaced
        ("NO", "yes"),  # no other spelling counts
        ("No!", "yes"),
        ("\nno", "yes"),  # words are split at spaces alone
        ("nothing", "yes"),
        ("I do not know", "no"),
        ("", "yes"),
        (".no", "yes"),
    ],
)
def test_no_if_a_word_of_the_first_sentence_is_No_not_or_no_else_yes(response, answer):
    assert parse(response) == answer


ROWS = [Row("yes", "Yes"), Row("yes", "Yes"), Row("yes", "No"), Row("no", "Yes"), Row("no", "No")]


def test_accuracy_precision_recall_f1_and_yes_ratio_of_a_split():
    # 2 true positives, 1 false, 1 missed, 1 true negative.
    figures = pope.score_split(ROWS)
    assert figures == {
        "accuracy": 3 / 5,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": pytest.approx(2 / 3),
        "yes_ratio": 3 / 5,  # of the predictions; of the labels it would be the same only by chance
        "num_questions": 5,
    }


def test_yes_ratio_is_that_of_the_predictions():
    assert pope.score_split([Row("yes", "No"), Row("no", "No")])["yes_ratio"] == 0


def test_headline_is_the_mean_of_the_f1():
    result = pope.score({"random": [Row("yes", "yes")], "popular": [Row("yes", "no")], "adversarial": ROWS})
    assert result["mean_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert result["random"]["f1"] == 1
    assert "f1" not in result


def test_a_single_split_also_stands_at_the_top():
    result = pope.score({"random": ROWS})
    assert result["f1"] == result["random"]["f1"] == result["mean_f1"]


def test_without_a_predicted_yes_the_split_is_named():
    result = pope.score({"random": [Row("yes", "no"), Row("no", "no")], "popular": ROWS})
    assert result["random"]["precision"] == 0
    assert result["warnings"] == {"no_predicted_yes": ["random"]}


def test_always_yes_on_a_balanced_split():
    figures = pope.score_split([Row("yes", "yes"), Row("no", "yes")] * 3)
    assert (figures["accuracy"], figures["f1"]) == (0.5, pytest.approx(2 / 3))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.text("Noyt ,.", max_size=8)), min_size=1), st.randoms())
def test_order_and_duplication_change_nothing(pairs, seed):
    rows = [Row(*pair) for pair in pairs]
    shuffled = pope.score_split(seed.sample(rows, len(rows)))
    assert shuffled == pope.score_split(rows)
    twice = pope.score_split([*rows, *rows])
    assert {**twice, "num_questions": len(rows)} == pytest.approx(shuffled)


def write_lines(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


LABELS = [{"question_id": i, "image": f"{i}.jpg", "text": "Is it?", "label": "yes" if i % 2 else "no"} for i in (1, 2)]


@pytest.mark.parametrize("key", ["answer", "text"])
def test_answers_are_matched_by_id(tmp_path, key):
    labels = write_lines(tmp_path / "labels.json", LABELS)
    answers = write_lines(tmp_path / "answers.jsonl", [{"question_id": i, key: f"answer {i}"} for i in (2, 1)])
    assert pope.load(labels, answers) == [Row("yes", "answer 1"), Row("no", "answer 2")]


def test_answers_of_another_split_are_an_error_though_their_ids_are_the_same(tmp_path):
    labels = write_lines(tmp_path / "labels.json", LABELS)
    rows = [{"question_id": row["question_id"], "prompt": "Is a cat there?", "text": "Yes"} for row in LABELS]
    with pytest.raises(ValueError, match="another split"):
        pope.load(labels, write_lines(tmp_path / "answers.jsonl", rows))


def test_answers_without_ids_are_matched_in_order(tmp_path):
    labels = write_lines(tmp_path / "labels.json", LABELS)
    rows = [{"question": "Is it?", "answer": text} for text in ("Yes", "No")]
    answers = write_lines(tmp_path / "answers.jsonl", rows)
    assert pope.load(labels, answers) == [Row("yes", "Yes"), Row("no", "No")]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"question_id": 1, "answer": "Yes"}], "lacks 1 of the ids"),
        ([{"question_id": i, "answer": "Yes"} for i in (1, 2, 3)], "lacks 1 of the ids"),
        ([{"question_id": 1, "answer": "Yes"}] * 2, "question_id 1 twice"),
        ([{"question_id": 1, "answer": "Yes"}, {"answer": "Yes"}], "no 'question_id'"),
        ([{"question_id": 1}], "line 1 has no text in 'answer'"),
        ([{"question_id": 1, "answer": None}], "line 1 has no text in 'answer'"),
        ([{"answer": "Yes"}], "matched in order"),
        (LABELS, "label file, not answers"),
    ],
)
def test_answers_that_do_not_fit_are_an_error(tmp_path, answers, message):
    labels = write_lines(tmp_path / "labels.json", LABELS)
    with pytest.raises(ValueError, match=message):
        pope.load(labels, write_lines(tmp_path / "answers.jsonl", answers))


def test_a_label_that_is_neither_yes_nor_no_is_an_error(tmp_path):
    labels = write_lines(tmp_path / "labels.json", [{**LABELS[0], "label": "maybe"}])
    with pytest.raises(ValueError, match="label 'maybe'"):
        pope.read_labels(labels)
