"""A small valid input of every scorer, as rows that a test can change before they are written."""

import argparse
import csv
import io
import json

import numpy as np
from PIL import Image

from eval import score


def run(*arguments):
    """`dualtoken score ARGUMENTS` → what it writes as JSON."""
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args([*map(str, arguments)]))


def json_file(value):
    return json.dumps(value).encode()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows, delimiter):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def arrays(**named):
    data = io.BytesIO()
    np.savez(data, **named)
    return data.getvalue()


def picture(level, size=12):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(level).integers(256, size=(size, size, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def vqav2_annotation(number):
    people = [{"answer": "cat", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
    ids = {"question_id": number, "image_id": number}
    return {**ids, "question_type": "what", "answer_type": "other", "answers": people}


def mmbench_rows():
    rows = []
    for turn in range(2):
        options = ["cat", "dog"] if turn == 0 else ["dog", "cat"]
        for question in (1, 2):
            cells = {"index": question + turn * 1_000_000, "question": "What?", "hint": "", "category": "pets"}
            letters = {"A": options[0], "B": options[1], "C": "", "D": "", "answer": "AB"[turn]}
            rows.append({**cells, **letters, "prediction": "A"})
    return rows


def seed_question(name, kind, answer):
    options = {f"choice_{letter}": letter for letter in "abcd"}
    kinds = {"question_type_id": kind, "data_type": "image"}
    return {"question_id": name, "question": "?", "answer": answer, **kinds, **options}


RNG = np.random.default_rng(0)
FEATURES = {
    "zeroshot": dict(
        image_features=RNG.standard_normal((6, 4)),
        labels=np.array([0, 1, 2, 0, 1, 2]),
        template_text_features=RNG.standard_normal((3, 2, 4)),
    ),
    "retrieval": dict(
        image=RNG.standard_normal((3, 4)), text=RNG.standard_normal((4, 4)), text_image_index=np.array([0, 1, 2, 2])
    ),
    "fid": dict(features=RNG.standard_normal((8, 3))),
    "mjhq": dict(features=RNG.standard_normal((8, 3)), category=np.array(["art", "food"] * 4)),
    "clipscore": dict(image=RNG.standard_normal((3, 4)), text=RNG.standard_normal((3, 4)), backbone="ViT-L-14"),
}
PAIR = "--reference-features {folder}/reference.npz --features {folder}/features.npz"

ROWS = {
    "vqav2": {
        "questions.json": {"questions": [{"question_id": i, "image_id": i, "question": "?"} for i in (1, 2)]},
        "annotations.json": {"annotations": [vqav2_annotation(i) for i in (1, 2)]},
        "results.json": [{"question_id": i, "answer": "cat"} for i in (1, 2)],
    },
    "mme": {f"{task}.txt": [["a.jpg", "Q", "Yes", "yes"], ["a.jpg", "R", "No", "no"]] for task in ("OCR", "color")},
    "pope": {
        "labels.jsonl": [{"question_id": i, "text": "Q", "label": label} for i, label in ((1, "yes"), (2, "no"))],
        "answers.jsonl": [{"question_id": i, "answer": "yes"} for i in (1, 2)],
    },
    "mmbench": {"results.tsv": mmbench_rows()},
    "seed": {
        "questions.json": {
            "questions": [seed_question("1", 1, "A"), seed_question("2", 2, "B")],
            "question_type": {"scene": 1, "count": 2},
        },
        "results.jsonl": [{"question_id": "1", "prediction": "A"}, {"question_id": "2", "prediction": "C"}],
    },
    "mmvet": {
        "grades.json": {f"v1_{i}": {"model": ["gpt-4"], "content": ["0.5"], "score": [0.5]} for i in (0, 1)},
        "questions.json": {f"v1_{i}": {"capability": ["ocr"]} for i in (0, 1)},
    },
    "zeroshot": {"features.npz": FEATURES["zeroshot"]},
    "retrieval": {"features.npz": FEATURES["retrieval"]},
    "fid": {"reference.npz": FEATURES["fid"], "features.npz": FEATURES["fid"]},
    "reconstruction": {"reference/1.png": 1, "reference/2.png": 2, "images/1.png": 3, "images/2.png": 4},
    "geneval": {
        "results.jsonl": [
            {"tag": "colors", "correct": bool(i), "prompt": "a", "metadata": "{}", "filename": f"{i}.png", "reason": ""}
            for i in range(4)
        ]
    },
    "dpg": {
        "answers.jsonl": [{"item_id": "a", "image": i, "proposition_id": 1, "answer": "yes"} for i in range(4)],
        "dpg_bench.csv": [{"item_id": "a", "proposition_id": 1, "dependency": 0, "tuple": "entity - whole (dog)"}],
    },
    "mjhq": {"reference.npz": FEATURES["mjhq"], "features.npz": FEATURES["mjhq"]},
    "clipscore": {"features.npz": FEATURES["clipscore"]},
}

ARGUMENTS = {
    "vqav2": "--questions {folder}/questions.json --annotations {folder}/annotations.json "
    "--results {folder}/results.json",
    "mme": "--results {folder}",
    "pope": "--labels {folder}/labels.jsonl --answers {folder}/answers.jsonl",
    "mmbench": "--results {folder}/results.tsv",
    "seed": "--questions {folder}/questions.json --results {folder}/results.jsonl",
    "mmvet": "--grades {folder}/grades.json --questions {folder}/questions.json",
    "zeroshot": "--features {folder}/features.npz",
    "retrieval": "--features {folder}/features.npz",
    "fid": PAIR,
    "reconstruction": "--reference {folder}/reference --images {folder}/images",
    "geneval": "--results {folder}/results.jsonl",
    "dpg": "--answers {folder}/answers.jsonl --csv {folder}/dpg_bench.csv",
    "mjhq": PAIR,
    "clipscore": "--features {folder}/features.npz",
}


def encode(name, rows):
    """The bytes of a file of these rows."""
    if name.endswith(".json"):
        return json_file(rows)
    if name.endswith(".jsonl"):
        return lines(rows)
    if name.endswith(".txt"):
        return "".join("\t".join(row) + "\n" for row in rows).encode()
    if name.endswith((".tsv", ".csv")):
        return table(rows, "\t" if name.endswith(".tsv") else ",")
    return picture(rows) if name.endswith(".png") else arrays(**rows)


def write(scorer, folder, **changed):
    """Writes the scorer's files, `changed` ones instead of the valid ones (`_` for `.` and `/`); returns the call."""
    for name, rows in ROWS[scorer].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(name, changed.get(name.replace(".", "_").replace("/", "_"), rows)))
    return [scorer, *ARGUMENTS[scorer].format(folder=folder).split()]
