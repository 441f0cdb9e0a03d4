"""Every scorer on broken, incomplete, doubled and foreign files: one sentence about the file, or a named warning."""

import copy
import json
import math

import numpy as np
import pytest

from eval.score import SCORERS
from tests.eval.scorer_inputs import ROWS, picture, run, write

FILES = [(scorer, name) for scorer, files in ROWS.items() for name in files]
DAMAGE = {
    "cut short": lambda content: content[: int(0.6 * len(content))],
    "empty": lambda content: b"",
    "nested": lambda content: b"[" * 100_000,
    "not UTF-8": lambda content: content[: len(content) // 2] + b"\xff\xfe" + content[len(content) // 2 + 2 :],
}


def test_there_is_an_input_of_every_scorer():
    assert set(ROWS) == set(SCORERS)


def numbers(value):
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


STABLE_NAMES = {  # others read these files: add names, rename none
    "vqav2": "overall per_answer_type per_question_type per_question",
    "mme": "perception cognition tasks",
    "pope": "accuracy precision recall f1 yes_ratio mean_f1",
    "mmbench": "circular vanilla per_category unparsed",
    "seed": "accuracy per_type",
    "mmvet": "total std per_capability",
    "zeroshot": "top1 top5",
    "retrieval": "text_to_image image_to_text",
    "fid": "fid",
    "reconstruction": "psnr ssim per_image",
    "geneval": "overall per_tag",
    "dpg": "overall per_category",
    "mjhq": "fid per_category",
    "clipscore": "clipscore clipscore_100 backbone",
}


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_valid_input_has_finite_figures_under_the_stable_names(scorer, tmp_path, capsys):
    result = run(*write(scorer, tmp_path), "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == result
    assert set(STABLE_NAMES[scorer].split()) | {"benchmark", "protocol", "warnings"} <= set(result)
    assert result["benchmark"] == scorer and result["protocol"] and capsys.readouterr().out
    assert numbers(result) and all(map(math.isfinite, numbers(result)))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("scorer", "name"), FILES)
def test_a_damaged_file_is_named_in_one_sentence(scorer, name, damage, tmp_path):
    arguments = write(scorer, tmp_path)
    path = tmp_path / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises((ValueError, OSError)) as error:
        run(*arguments)
    message = str(error.value)
    assert str(path) in message and "\n" not in message


@pytest.mark.parametrize(("scorer", "name"), FILES)
def test_a_missing_file_is_named(scorer, name, tmp_path):
    arguments = write(scorer, tmp_path)
    (tmp_path / name).unlink()
    if scorer == "mme":  # the protocol scores the tasks that are there
        assert name.removesuffix(".txt") in run(*arguments)["warnings"]["missing_tasks"]
        return
    with pytest.raises((ValueError, OSError), match=r"does not exist|lacks 1 of the pictures"):
        run(*arguments)


def change(scorer, name, edit):
    """The scorer's valid rows of one file after `edit(rows)`, which changes them or returns others."""
    rows = copy.deepcopy(ROWS[scorer][name])
    changed = edit(rows)
    return {name.replace(".", "_").replace("/", "_"): rows if changed is None else changed}


def put(index, **values):
    return lambda rows: rows[index].update(values)


def drop(rows):
    del rows[-1]


def double(rows):
    rows.append(rows[0])


def replaced(**values):
    return lambda rows: {**rows, **values}


ERRORS = [
    # missing predictions
    ("vqav2", "results.json", drop, "lacks 1 of the ids"),
    ("mme", "OCR.txt", drop, "does not have two consecutive lines"),
    ("pope", "answers.jsonl", drop, "lacks 1 of the ids"),
    ("mmbench", "results.tsv", lambda rows: [{k: v for k, v in row.items() if k != "prediction"} for row in rows],
     "lacks the column 'prediction'"),
    ("seed", "results.jsonl", drop, "lacks predictions for 1 questions"),
    ("mmvet", "grades.json", lambda rows: {"v1_0": rows["v1_0"]}, "lacks 1 of the ids"),
    ("zeroshot", "features.npz", replaced(labels=np.array([0, 1, 2])), "do not fit together"),
    ("retrieval", "features.npz", replaced(text_image_index=np.array([0, 1])), "do not fit together"),
    ("clipscore", "features.npz", replaced(text=np.eye(2, 4)), "do not fit together"),
    ("dpg", "answers.jsonl", lambda rows: [{**rows[0], "proposition_id": 2}], "has no proposition 2"),
    ("mjhq", "features.npz", lambda rows: {k: v[::2] for k, v in rows.items()}, "lacks 1 of the ids"),
    # the same id twice
    ("vqav2", "results.json", double, "question_id 1 twice"),
    ("vqav2", "annotations.json", lambda rows: double(rows["annotations"]), "question_id 1 twice"),
    ("pope", "labels.jsonl", double, "question_id 1 twice"),
    ("pope", "answers.jsonl", double, "question_id 1 twice"),
    ("mmbench", "results.tsv", double, "index 1 twice"),
    ("seed", "results.jsonl", double, "'1' 2 times"),
    ("geneval", "results.jsonl", double, "'0.png' twice"),
    ("dpg", "answers.jsonl", double, "twice"),
    ("dpg", "dpg_bench.csv", double, "proposition 1 of 'a' twice"),
    # another version or another file
    ("vqav2", "questions.json", lambda rows: rows["questions"][0].update(image_id=9), "about another image"),
    ("vqav2", "annotations.json", lambda rows: rows["annotations"][0].update(answers=[]), "no reference answers"),
    ("mme", "OCR.txt", lambda rows: [row[:3] for row in rows], "3 fields"),
    ("mme", "OCR.txt", lambda rows: [[*row[:2], "maybe", row[3]] for row in rows], "neither Yes nor No"),
    ("pope", "labels.jsonl", put(0, label="maybe"), "not yes or no"),
    ("pope", "answers.jsonl", put(0, question_id=9), "lacks 1 of the ids"),
    ("mmbench", "results.tsv", put(0, answer="D"), "none of its options"),
    ("mmbench", "results.tsv", lambda rows: rows[2:], "but not its own row"),
    ("seed", "questions.json", lambda rows: rows["questions"][0].update(question_type_id=30), "another version"),
    ("seed", "questions.json", lambda rows: rows["questions"][0].update(question_type_id=[1]), "another version"),
    ("seed", "questions.json", lambda rows: rows["question_type"].update(scene=[1]), "another version"),
    ("seed", "results.jsonl", put(0, question_id="9"), "lacks 1 ids"),
    ("mmvet", "questions.json", lambda rows: {**rows, "v1_7": {"capability": ["ocr"]}}, "lacks 1 of the ids"),
    ("mmvet", "grades.json", lambda rows: {k: "an answer" for k in rows}, "it is not graded"),
    ("zeroshot", "features.npz", replaced(labels=np.array([0, 1, 2, 0, 1, 3])), "where 0 … 2 are possible"),
    ("zeroshot", "features.npz", replaced(image_features=np.ones((6, 5))), "features of different models"),
    ("retrieval", "features.npz", replaced(text=np.ones((4, 5))), "features of different models"),
    ("retrieval", "features.npz", lambda rows: {"images": rows["image"]}, "no array 'image'"),
    ("fid", "features.npz", replaced(features=np.ones((8, 4))), "features of different models"),
    ("mjhq", "features.npz", lambda rows: {"features": rows["features"]}, "no array 'category'"),
    ("mjhq", "features.npz", replaced(category=np.arange(8)), "must hold text"),
    ("clipscore", "features.npz", lambda rows: {k: v for k, v in rows.items() if k != "backbone"}, "give --backbone"),
    ("geneval", "results.jsonl", put(0, tag="textures"), "none of single_object"),
    ("dpg", "dpg_bench.csv", lambda rows: [{"item_id": "a", "text": "t"}], "lacks the column"),
    ("dpg", "answers.jsonl", put(0, item_id="b"), "another version"),
    # what cannot be read as an answer
    ("vqav2", "results.json", put(0, answer=2), "no text in 'answer'"),
    ("pope", "answers.jsonl", put(0, answer=None), "no text in 'answer'"),
    ("seed", "results.jsonl", put(0, prediction=None), "with a text"),
    ("mmvet", "grades.json", lambda rows: rows["v1_0"].update(score=[float("nan")]), "no number from 0 to 1"),
    ("geneval", "results.jsonl", put(0, correct="yes"), "it is not judged"),
    ("dpg", "answers.jsonl", put(0, answer=True), "with a text"),
    *((scorer, "features.npz", lambda rows, key=key: {**rows, key: rows[key] * np.nan}, "NaN or infinity")
      for scorer, key in (("zeroshot", "image_features"), ("retrieval", "text"), ("fid", "features"),
                          ("mjhq", "features"), ("clipscore", "image"))),
]  # fmt: skip


@pytest.mark.parametrize(("scorer", "name", "edit", "message"), ERRORS)
def test_files_that_do_not_fit_are_an_error(scorer, name, edit, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        run(*write(scorer, tmp_path, **change(scorer, name, edit)))
    assert "\n" not in str(error.value)


WARNINGS = [
    ("vqav2", "results.json", put(0, answer=" "), "empty_answers", 1),
    ("mme", "OCR.txt", lambda rows: rows[0].__setitem__(3, "perhaps"), "other_answers", 1),
    ("mme", "OCR.txt", lambda rows: rows + rows, "repeated_questions", 2),
    ("pope", "answers.jsonl", put(0, answer=""), "empty_answers", 1),
    ("mmbench", "results.tsv", put(0, prediction="perhaps"), "unparsed", 1),
    ("mmbench", "results.tsv", drop, "questions_without_all_rotations", 1),
    ("seed", "results.jsonl", put(0, prediction="perhaps"), "unparsed", 1),
    ("seed", "results.jsonl", lambda rows: None, "rows_instead_of_the_official_14233", 2),
    ("mmvet", "grades.json", lambda rows: rows["v1_0"].update(content=["good"]),
     "grades_whose_content_is_no_number", 1),
    ("mmvet", "grades.json", lambda rows: None, "questions_instead_of_the_official_218", 2),
    ("zeroshot", "features.npz", replaced(labels=np.array([0, 1, 0, 0, 1, 1])), "classes_without_images", 1),
    ("retrieval", "features.npz", replaced(text_image_index=np.array([0, 1, 1, 1])), "images_without_texts", 1),
    ("fid", "features.npz", replaced(features=np.eye(3)), "fewer_images_than_dimensions", 3),
    ("mjhq", "features.npz", lambda rows: {k: v[:7] for k, v in rows.items()},
     "categories_with_other_numbers_of_pictures", ["food"]),
    ("reconstruction", "images/1.png", lambda rows: 1, "exact_images_not_in_the_psnr", 1),
    ("geneval", "results.jsonl", drop, "prompts_without_four_images", 1),
    ("dpg", "answers.jsonl", put(0, answer="perhaps"), "answers_neither_yes_nor_no", 1),
    ("dpg", "answers.jsonl", drop, "prompts_without_four_pictures", 1),
]  # fmt: skip


@pytest.mark.parametrize(("scorer", "name", "edit", "warning", "count"), WARNINGS)
def test_what_the_protocol_counts_is_a_named_warning(scorer, name, edit, warning, count, tmp_path, capsys):
    result = run(*write(scorer, tmp_path, **change(scorer, name, edit)))
    assert result["warnings"][warning] == count
    assert f"warning: {warning.replace('_', ' ')}: " in capsys.readouterr().out


@pytest.mark.parametrize(("scorer", "key"), [("zeroshot", "labels"), ("retrieval", "text_image_index")])
def test_indices_may_be_any_whole_numbers(scorer, key, tmp_path):
    expected = run(*write(scorer, tmp_path))
    for kind in ("uint64", "int8"):
        changed = change(scorer, "features.npz", lambda rows, kind=kind: {**rows, key: rows[key].astype(kind)})
        assert run(*write(scorer, tmp_path, **changed)) == expected


def test_pictures_of_another_size_cannot_be_compared(tmp_path):
    arguments = write("reconstruction", tmp_path)
    (tmp_path / "images/1.png").write_bytes(picture(3, size=13))
    with pytest.raises(ValueError, match="'1' are 12×12 and 13×13 pixels"):
        run(*arguments)
