"""MMBench: circular and vanilla scores, and each rule by which an option is read from an answer."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import mmbench
from eval.options import extract_option

OPTIONS = {"A": "a cat", "B": "a dog", "C": "Vitamin C", "D": "D major"}


@pytest.mark.parametrize("answer", ["B", "b", " B ", "B.", "(B)", "[B]", "B)", "B:", "(b).", "B\n"])
def test_rule_1_the_whole_answer_is_a_letter(answer):
    assert extract_option(answer, OPTIONS) == "B"


@pytest.mark.parametrize("answer", ["B. a dog", "(B) a dog", "B: it barks", "B) a dog.", "B. a dog", "[B]. a dog"])
def test_rule_2_the_answer_opens_with_a_marked_letter(answer):
    assert extract_option(answer, OPTIONS) == "B"


def test_rule_2_what_follows_may_be_the_option_s_own_text_even_with_a_letter_in_it():
    assert extract_option("C. Vitamin C", OPTIONS) == "C"
    assert extract_option("D. D major", OPTIONS) == "D"
    assert extract_option("A. B", {"A": "B", "B": "A"}) == "A"
    assert extract_option("A. or B", OPTIONS) is None


@pytest.mark.parametrize("answer", ["Vitamin C", "vitamin c", " Vitamin C. "])
def test_rule_3_the_whole_answer_is_one_option_s_text(answer):
    assert extract_option(answer, {"A": "Vitamin C", "B": "iron", "C": "zinc"}) == "A"


def test_rule_3_two_options_with_the_same_text_are_no_answer():
    assert extract_option("red", {"A": "red", "B": "Red", "C": "blue"}) is None


@pytest.mark.parametrize(
    "answer", ["The answer is B", "The answer is B.", "Answer: B", "I choose (B), the dog", "Option B"]
)
def test_rule_4_exactly_one_letter_stands_alone(answer):
    assert extract_option(answer, OPTIONS) == "B"


@pytest.mark.parametrize(
    "answer", ["A dog or a cat", "A small animal", "It is a cat", "Either A or B", "b or c", "Bob"]
)
def test_articles_words_and_several_letters_are_never_guessed(answer):
    assert extract_option(answer, OPTIONS) is None


@pytest.mark.parametrize("answer", ["", "  ", "I do not know", "E", "nan", "the third"])
def test_nothing_readable_is_none(answer):
    assert extract_option(answer, OPTIONS) is None


def test_a_letter_without_an_option_is_none():
    assert extract_option("D", {"A": "x", "B": "y"}) is None
    assert extract_option("The answer is D", {"A": "x", "B": "y"}) is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_what_is_read_is_an_option_or_nothing(answer):
    assert extract_option(answer, OPTIONS) in (*OPTIONS, None)


COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "prediction"]


def rotations(base, category, predictions, texts=("cat", "dog", "cow", "owl")):
    """A question whose right answer is the first text, rotated once per option."""
    rows = []
    for k, prediction in enumerate(predictions):
        turned = [*texts[k:], *texts[:k]]
        letters = dict(zip("ABCD", [*turned, "", "", ""], strict=False))
        answer = "ABCD"[turned.index(texts[0])]
        index = base + k * 1_000_000
        cells = {"index": index, "question": "What?", "hint": "", **letters, "answer": answer, "category": category}
        wrong = "ABCD"[("ABCD".index(answer) + 1) % len(texts)]
        rows.append({**cells, "prediction": answer if prediction else wrong})
    return rows


def write_table(path, rows, columns=COLUMNS, delimiter="\t"):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


TABLE = [
    *rotations(1, "animals", [1, 1, 1, 1]),
    *rotations(2, "animals", [1, 1, 0, 1]),
    *rotations(3, "plants", [0, 1], texts=("oak", "elm")),
    *rotations(4, "plants", [1, 1], texts=("oak", "elm")),
]


def test_circular_needs_every_rotation_and_vanilla_the_row_below_a_million(tmp_path):
    result = mmbench.score(mmbench.load(write_table(tmp_path / "r.tsv", TABLE)))
    assert result["circular"] == 2 / 4
    assert result["vanilla"] == 3 / 4
    assert result["per_category"] == {"animals": 0.5, "plants": 0.5}
    assert result["vanilla_per_category"] == {"animals": 1.0, "plants": 0.5}
    assert (result["unparsed"], result["num_questions"], result["num_rows"]) == (0, 4, 12)
    assert result["warnings"] == {}


def test_unparsed_answers_are_wrong_and_counted(tmp_path):
    rows = [{**row, "prediction": "perhaps"} for row in TABLE[:4]] + TABLE[10:]
    result = mmbench.score(mmbench.load(write_table(tmp_path / "r.tsv", rows)))
    assert (result["circular"], result["vanilla"], result["unparsed"]) == (0.5, 0.5, 4)
    assert result["warnings"] == {"unparsed": 4}


def test_options_stop_at_the_first_empty_one(tmp_path):
    rows = [{**TABLE[0], "C": "", "D": "owl", "prediction": "D"}]
    [row] = mmbench.load(write_table(tmp_path / "r.tsv", rows))
    assert row.options == {"A": "cat", "B": "dog"}
    assert mmbench.score([row])["unparsed"] == 1


def test_rotations_that_are_missing_are_counted(tmp_path):
    result = mmbench.score(mmbench.load(write_table(tmp_path / "r.tsv", TABLE[:3])))
    assert result["warnings"] == {"questions_without_all_rotations": 1}


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(len(TABLE))))
def test_order_of_rows_does_not_matter(order):
    rows = mmbench.parse_rows([{key: str(cell) for key, cell in row.items()} for row in TABLE], "table")
    assert mmbench.score([rows[i] for i in order]) == mmbench.score(rows)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".tsv", "\t"), (".csv", ",")])
def test_tables_of_text_are_read_with_quotes_and_line_breaks(tmp_path, suffix, delimiter):
    rows = [{**TABLE[0], "question": 'Which "pet",\tor\nbeast?'}]
    [row] = mmbench.load(write_table(tmp_path / f"r{suffix}", rows, delimiter=delimiter))
    assert row.question == 'Which "pet",\tor\nbeast?'


def test_xlsx_is_read_with_openpyxl_and_says_so_without(tmp_path, monkeypatch):
    path = tmp_path / "r.xlsx"
    path.write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ValueError, match="needs the package openpyxl"):
        mmbench.load(path)


def test_xlsx_gives_the_same_as_tsv(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(COLUMNS)
    for row in TABLE:
        book.active.append([row[column] or None for column in COLUMNS])
    book.save(tmp_path / "r.xlsx")
    assert mmbench.load(tmp_path / "r.xlsx") == mmbench.load(write_table(tmp_path / "r.tsv", TABLE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": "1000001"}, "index 1000001 twice"),
        ({"index": "one"}, "index 'one', which is not a number"),
        ({"answer": "E"}, "answer 'E', which is none of its options"),
        ({"answer": ""}, "index 1 has no answer"),
        ({"index": "7"}, "rotations of question 1 but not its own row"),
    ],
)
def test_tables_that_do_not_fit_are_an_error(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        mmbench.load(write_table(tmp_path / "r.tsv", [{**TABLE[0], **change}, *TABLE[1:]]))


def test_missing_columns_and_other_kinds_of_file_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="lacks the column 'prediction'"):
        mmbench.load(write_table(tmp_path / "r.tsv", TABLE, columns=COLUMNS[:-1]))
    with pytest.raises(ValueError, match="lacks the column 'A', 'B'"):
        mmbench.load(write_table(tmp_path / "r.tsv", TABLE, columns=["index", "question", "answer", "prediction"]))
    with pytest.raises(ValueError, match=r"give a \.tsv, \.csv or \.xlsx"):
        mmbench.load(tmp_path / "r.json")


def test_a_table_cut_short_is_an_error(tmp_path):
    path = write_table(tmp_path / "r.tsv", TABLE)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="cut short"):
        mmbench.load(path)
