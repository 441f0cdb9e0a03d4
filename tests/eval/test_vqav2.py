"""VQAv2: one hand-computed case per rule of the protocol, and the whole against a naive reading of it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import vqav2
from eval.contractions import CONTRACTIONS
from eval.vqav2 import accuracy, clean, normalise

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def references(*answers):
    """Ten answer records, each of a person of their own."""
    return [{"answer": text, "answer_confidence": "yes", "answer_id": i + 1} for i, text in enumerate(answers)]


def test_line_breaks_and_tabs_become_spaces_and_ends_are_stripped():
    assert clean("\n red\tapple \n") == "red apple"
    assert accuracy(" red\tapple\n", references(*["red apple"] * 10)) == 1.0


def test_nothing_is_normalised_when_all_references_are_the_same_string():
    assert accuracy("The Dog", references(*["dog"] * 10)) == 0.0
    assert accuracy("The Dog", references(*["dog"] * 9, "cat")) == 1.0


def test_references_that_differ_only_in_case_are_not_the_same_string():
    assert accuracy("YES.", references(*["Yes"] * 9, "yes")) == 1.0


def test_references_are_cleaned_before_they_are_compared():
    assert accuracy("Dog", references(*["dog"] * 9, " dog ")) == 0.0  # all the same: "Dog" stays as it is


@pytest.mark.parametrize("mark", list(';/[]"{}()=+\\_-><@`,?!'))
def test_each_of_the_21_marks_next_to_a_space_is_deleted_and_otherwise_becomes_a_space(mark):
    assert normalise(f"left{mark} right") == "left right"
    assert normalise(f"left {mark}right") == "left right"
    assert normalise(f"left{mark}right") == "left right"
    assert normalise(f"left{mark}right x{mark} y") == "leftright x y"  # one place decides for all


def test_there_are_21_marks_and_the_apostrophe_and_colon_are_not_among_them():
    assert len(vqav2._PUNCTUATION) == len(set(vqav2._PUNCTUATION)) == 21
    assert normalise("12:30 o'clock") == "12:30 o'clock"


def test_digit_comma_digit_deletes_every_mark_of_the_string():
    assert normalise("1,000-2,000") == "10002000"
    assert normalise("a-b") == "b"  # without it the hyphen is a space, and "a" an article
    assert normalise("1,2 x-y") == "12 xy"


def test_marks_are_judged_in_the_original_string():
    # Deleting the comma first would leave "x -y", where the hyphen stands next to a space.
    assert normalise("x ,-y") == "x y"


def test_a_period_is_deleted_unless_a_digit_follows():
    assert normalise("u.s.a.") == "usa"
    assert normalise("3.5") == "3.5"
    assert normalise("5.") == "5"
    assert normalise(".5 mr. x") == ".5 mr x"


def test_only_the_first_32_periods_are_deleted():
    assert normalise("x" + "." * 32) == "x"
    assert normalise("x" + "." * 33) == "x."
    assert normalise("1.5" + "x." * 33) == "1.5" + "x" * 33 + "."  # the one before a digit does not count


def test_lower_case_and_single_spaces():
    assert normalise("  Big   RED  ") == "big red"


@pytest.mark.parametrize(
    ("word", "digits"),
    [("none", 0), *((word, number) for number, word in enumerate(NUMBERS))],
)
def test_number_words_become_digits(word, digits):
    assert normalise(word.title()) == str(digits)


def test_eleven_and_words_within_words_are_not_numbers():
    assert normalise("eleven someone") == "eleven someone"


def test_articles_are_dropped():
    assert normalise("The cat and an owl on a mat") == "cat and owl on mat"


def test_contractions_get_their_apostrophes():
    assert normalise("Dont") == "don't"
    assert normalise("couldnt've shouldn'tve") == "couldn't've shouldn't've"
    assert normalise("oclock yall'd've ow's'at") == "o'clock y'all'd've 'ow's'at"


def test_the_contraction_map_keeps_the_oddities_of_the_official_table():
    assert len(CONTRACTIONS) == 114  # 120 there, of which 4 have a capital and 2 map to themselves
    assert normalise("somebody'd") == "somebodyd"
    assert normalise("Im ive id've") == "im ive id've"  # only with a capital in the table, never reached
    assert normalise("let's she's") == "let's she's"
    assert normalise("shed hell well") == "shed hell well"


def test_articles_are_dropped_before_contractions_and_after_numbers():
    assert normalise("a none") == "0"
    assert normalise("the aint") == "ain't"


def test_accuracy_is_the_mean_of_leave_one_outs():
    # 3 matches: a matching record sees 2 others (2/3), the 7 others see 3 (1).
    assert accuracy("cat", references(*["cat"] * 3, *["dog"] * 7)) == pytest.approx((3 * 2 / 3 + 7) / 10)
    # 1 match: it sees none, the 9 others see one.
    assert accuracy("cat", references("cat", *["dog"] * 9)) == pytest.approx(9 * (1 / 3) / 10)
    assert accuracy("cat", references(*["cat"] * 4, *["dog"] * 6)) == 1.0
    assert accuracy("cow", references(*["cat"] * 4, *["dog"] * 6)) == 0.0


def test_other_means_another_record_so_answer_ids_matter():
    same = [{"answer": "cat", "answer_id": 1}] * 3 + [{"answer": "dog", "answer_id": i} for i in range(2, 9)]
    # Three equal records are not "other" to one another: each of them sees 0 matches, the 7 others see 3.
    assert accuracy("cat", same) == pytest.approx(7 / 10)


def naive_normalise(text):
    """The protocol's sentences one after the other, a character at a time."""
    marks = ';/[]"{}()=+\\_-><@`,?!'
    number_comma = any(
        text[i - 1].isdecimal() and text[i] == "," and text[i + 1].isdecimal() for i in range(1, len(text) - 1)
    )
    out = ""
    for letter in text:
        if letter not in marks:
            out += letter
        elif not (number_comma or letter + " " in text or " " + letter in text):
            out += " "
    kept, deleted = "", 0
    for i, letter in enumerate(out):
        if letter == "." and not out[i + 1 : i + 2].isdecimal() and deleted < 32:
            deleted += 1
        else:
            kept += letter
    words = []
    for word in kept.lower().split():
        word = "0" if word == "none" else str(NUMBERS.index(word)) if word in NUMBERS else word
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word, word))
    return " ".join(words)


def naive_accuracy(prediction, records):
    records = [{**record, "answer": clean(record["answer"])} for record in records]
    prediction = clean(prediction)
    if len({record["answer"] for record in records}) > 1:
        records = [{**record, "answer": naive_normalise(record["answer"])} for record in records]
        prediction = naive_normalise(prediction)
    scores = []
    for one in records:
        others = [record for record in records if record != one]
        scores.append(min(1, sum(record["answer"] == prediction for record in others) / 3))
    return sum(scores) / len(scores)


WORDS = st.sampled_from(
    [
        "a",
        "the",
        "none",
        "two",
        "dont",
        "ain't",
        "Yes",
        "no",
        "1,000",
        "3.5",
        "U.S.",
        "x-y",
        "left/right",
        "(b)",
        ",",
        "!",
    ]
)
ANSWERS = st.one_of(
    st.lists(WORDS, max_size=4).map(" ".join),
    st.text(alphabet="ab1 ,.-!\t\nT'", max_size=50),
)


@settings(max_examples=300, deadline=None)
@given(prediction=ANSWERS, answers=st.lists(ANSWERS, min_size=1, max_size=10), ids=st.lists(st.integers(1, 4)))
def test_agrees_with_a_naive_reading_of_the_protocol(prediction, answers, ids):
    assert normalise(prediction) == naive_normalise(prediction)
    records = [{"answer": a, "answer_id": i} for a, i in zip(answers, itertools.chain(ids, range(10)), strict=False)]
    for candidate in (prediction, answers[0]):
        assert accuracy(candidate, records) == pytest.approx(naive_accuracy(candidate, records))


def annotation(question_id, answers, answer_type="other", question_type="what is"):
    return {
        "question_id": question_id,
        "image_id": question_id,
        "question_type": question_type,
        "answer_type": answer_type,
        "multiple_choice_answer": answers[0],
        "answers": references(*answers),
    }


ANNOTATIONS = [
    annotation(1, ["yes"] * 10, "yes/no", "is the"),
    annotation(2, ["cat"] * 3 + ["dog"] * 7),
    annotation(3, ["2"] * 10, "number", "how many"),
]


def test_overall_per_answer_type_and_per_question_type():
    result = vqav2.score(ANNOTATIONS, {1: "yes", 2: "Cat", 3: "3"})
    assert result["per_question"] == {"1": 100, "2": pytest.approx(90), "3": 0}
    assert result["overall"] == pytest.approx(190 / 3)
    assert result["per_answer_type"] == {"number": 0, "other": pytest.approx(90), "yes/no": 100}
    assert result["per_question_type"] == {"how many": 0, "is the": 100, "what is": pytest.approx(90)}
    assert result["warnings"] == {}


def test_empty_answers_and_unusual_numbers_of_references_are_counted():
    result = vqav2.score([{**ANNOTATIONS[0], "answers": references("yes", "yes")}, ANNOTATIONS[2]], {1: "", 3: " "})
    assert result["warnings"] == {"empty_answers": 2, "questions_without_ten_references": 1}


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), predictions=st.lists(ANSWERS, min_size=3, max_size=3))
def test_the_order_of_rows_does_not_matter(order, predictions):
    given_answers = dict(zip((1, 2, 3), predictions, strict=True))
    shuffled = [{**ANNOTATIONS[i], "answers": ANNOTATIONS[i]["answers"][::-1]} for i in order]
    first, second = vqav2.score(ANNOTATIONS, given_answers), vqav2.score(shuffled, given_answers)
    assert first["per_question"] == pytest.approx(second["per_question"])
    assert first["overall"] == pytest.approx(second["overall"])


def test_duplicating_all_questions_under_new_ids_changes_no_mean():
    twice = [*ANNOTATIONS, *({**row, "question_id": row["question_id"] + 10} for row in ANNOTATIONS)]
    predictions = {1: "yes", 2: "cat", 3: "2"}
    both = vqav2.score(twice, {**predictions, **{key + 10: value for key, value in predictions.items()}})
    one = vqav2.score(ANNOTATIONS, predictions)
    for name in ("overall", "per_answer_type", "per_question_type"):
        assert both[name] == pytest.approx(one[name])
