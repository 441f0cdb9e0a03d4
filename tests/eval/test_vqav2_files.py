"""VQAv2: the official files as they should be, and everything that can be wrong with them."""

import json

import pytest

from eval import vqav2


def annotation(question_id, answer_type):
    people = [{"answer": "yes", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
    ids = {"question_id": question_id, "image_id": question_id}
    return {**ids, "question_type": "is the", "answer_type": answer_type, "answers": people}


ANNOTATIONS = [annotation(1, "yes/no"), annotation(2, "other"), annotation(3, "number")]


@pytest.fixture
def files(tmp_path):
    questions = [
        {"question_id": row["question_id"], "image_id": row["image_id"], "question": "?"} for row in ANNOTATIONS
    ]
    contents = {
        "questions": {"questions": questions},
        "annotations": {"annotations": ANNOTATIONS},
        "results": [{"question_id": i, "answer": "yes"} for i in (1, 2, 3)],
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def load(folder):
    return vqav2.load(*(folder / f"{name}.json" for name in ("questions", "annotations", "results")))


def test_load_reads_the_official_files(files):
    annotations, predictions = load(files)
    assert annotations == ANNOTATIONS
    assert predictions == {1: "yes", 2: "yes", 3: "yes"}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"question_id": 1, "answer": "x"}, {"question_id": 2, "answer": "x"}], "lacks 1 of the ids.*3 for one"),
        ([{"question_id": i, "answer": "x"} for i in (1, 2, 3, 4)], "lacks 1 of the ids.*4 for one"),
        ([{"question_id": str(i), "answer": "x"} for i in (1, 2, 3)], "lacks 3 of the ids"),
        ([{"question_id": i, "answer": "x"} for i in (1, 2, 3, 3)], "question_id 3 twice"),
        ([{"question_id": i, "answer": 2} for i in (1, 2, 3)], "no text in 'answer'"),
        ([{"id": 1, "answer": "x"}], "no 'question_id'"),
        ({"1": "x"}, "not a list"),
        ([], "lacks 3 of the ids"),
    ],
)
def test_results_that_do_not_fit_are_an_error(files, results, message):
    (files / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message):
        load(files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": 9}, "question_id 9 is not in"),
        ({"image_id": 9}, "about another image"),
        ({"answers": []}, "no reference answers"),
        ({"answers": ["yes"]}, "without a text"),
        ({"question_id": 2}, "question_id 2 twice"),
    ],
)
def test_annotations_of_another_version_are_an_error(files, change, message):
    changed = [{**ANNOTATIONS[0], **change}, *ANNOTATIONS[1:]]
    (files / "annotations.json").write_text(json.dumps({"annotations": changed}))
    with pytest.raises(ValueError, match=message):
        load(files)
