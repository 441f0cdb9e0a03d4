"""A split of SEED-Bench and MM-Vet in their official formats, and the prompts that come of it."""

import json

import pytest
from PIL import Image

from eval.runner import open_benchmarks


def write_split(folder):
    for name in ("images", "seed", "mmvet"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "images/1.png")
    choices = {f"choice_{letter}": color for letter, color in zip("abcd", ("red", "blue", "tan", "grey"), strict=True)}
    row = {"question": "Which color?", "data_type": "image", "data_id": "1", "answer": "A", **choices}
    rows = [{**row, "question_id": str(min(i, 2)), "question_type_id": 1 + i} for i in range(4)]
    rows.append({**row, "question_id": "9", "question_type_id": 10, "data_type": "video"})
    content = {"questions": rows, "question_type": {f"type {number}": number for number in range(1, 13)}}
    (folder / "seed/SEED-Bench.json").write_text(json.dumps(content))
    record = {"imagename": "1.png", "question": "Why?", "answer": "red", "capability": ["rec"], "imagesource": "x"}
    (folder / "mmvet/mm-vet.json").write_text(json.dumps({"v1_0": record, "v1_1": record}))


def test_prompts_and_videos_left_out(tmp_path):
    write_split(tmp_path / "val")
    seed, mmvet = (benchmark.questions() for benchmark in open_benchmarks(tmp_path, "val"))
    assert len(seed) == 4
    assert seed[0].prompt == (
        "Which color?\nA. red\nB. blue\nC. tan\nD. grey"
        "\nAnswer with the option's letter from the given choices directly."
    )
    assert mmvet[0].prompt == "Why?"


@pytest.mark.parametrize(("name", "path"), [("seed", "seed/SEED-Bench.json"), ("mmvet", "mmvet/mm-vet.json")])
def test_another_format_is_named(tmp_path, name, path):
    write_split(tmp_path / "val")
    (tmp_path / "val" / path).write_text('{"questions": 3')
    with pytest.raises(ValueError, match="is not complete JSON"):
        open_benchmarks(tmp_path, "val", [name])[0].questions()
    (tmp_path / "val" / path).write_text("[]")
    with pytest.raises(ValueError, match="this is not"):
        open_benchmarks(tmp_path, "val", [name])[0].questions()
