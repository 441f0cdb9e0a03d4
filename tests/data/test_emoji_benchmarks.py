"""The question files made from the shipped emoji, in the official formats."""

import csv
import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data.emoji_benchmarks import build, training_conversations
from data.emoji_captions import TONES
from data.emoji_names import is_plural
from data.emoji_questions import QuestionMaker, truth
from data.emoji_splits import SPLITS, split_group
from data.shards import RawSample, iterate_shards

SHARDS = Path(__file__).parents[2] / "assets" / "emoji"


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[RawSample]]:
    return {split: list(iterate_shards(str(SHARDS / f"{split}-*.tar.gz"))) for split in SPLITS}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("benchmarks")
    build(SHARDS, out, pictures_per_split=24, seed=0)
    return out


@pytest.mark.parametrize("split", SPLITS)
def test_vqav2_files(benchmarks: Path, split: str):
    folder = benchmarks / split / "vqav2"
    questions = json.loads((folder / f"v2_OpenEnded_mscoco_{split}_questions.json").read_text())["questions"]
    annotations = json.loads((folder / f"v2_mscoco_{split}_annotations.json").read_text())["annotations"]
    ids = [row["question_id"] for row in questions]
    assert ids == [row["question_id"] for row in annotations] and len(ids) == len(set(ids))
    for row in annotations:
        assert [answer["answer_id"] for answer in row["answers"]] == list(range(1, 11))
        assert row["answer_type"] in ("yes/no", "number", "other")
        counts = Counter(answer["answer"] for answer in row["answers"])
        assert row["multiple_choice_answer"] in counts and min(counts.values()) >= 4  # so each is fully right
        assert (benchmarks / split / "images" / f"COCO_{split}_{row['image_id']:012d}.png").is_file()
    answers = Counter(row["multiple_choice_answer"] for row in annotations if row["answer_type"] == "yes/no")
    assert answers["yes"] == answers["no"] > 0


@pytest.mark.parametrize("split", SPLITS)
def test_mme_files(benchmarks: Path, split: str):
    tasks = {path.name for path in (benchmarks / split / "mme").iterdir()}
    assert tasks <= {"existence", "count", "color", "scene", "artwork"} and {"existence", "artwork"} <= tasks
    for path in (benchmarks / split / "mme").glob("*/questions_answers_YN/*.txt"):
        pairs = [line.split("\t") for line in path.read_text().splitlines()]
        assert [answer for _, answer in pairs] == ["Yes", "No"]
        assert all(question.endswith("? Please answer yes or no.") for question, _ in pairs)
        assert (path.parents[1] / "images" / f"{path.stem}.png").is_file()


@pytest.mark.parametrize("split", SPLITS)
def test_pope_files(benchmarks: Path, split: str):
    for negatives in ("random", "popular", "adversarial"):
        lines = (benchmarks / split / "pope" / f"coco_pope_{negatives}.json").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert Counter(row["label"] for row in rows) == {"yes": 24, "no": 24}
        assert [row["question_id"] for row in rows] == list(range(1, 49))
        assert all((benchmarks / split / "images" / row["image"]).is_file() for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_mmbench_rotations_keep_the_right_answer(benchmarks: Path, split: str):
    with (benchmarks / split / "mmbench" / "mmbench.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_base = defaultdict(list)
    for row in rows:
        by_base[int(row["index"]) % 1_000_000].append(row)
    assert len(by_base) == 24
    for base, rotations in by_base.items():
        assert [int(row["index"]) for row in rotations] == [base + k * 1_000_000 for k in range(4)]
        assert len({row[row["answer"]] for row in rotations}) == 1
        assert {row["answer"] for row in rotations} == set("ABCD")
        assert all(len({row[letter] for letter in "ABCD"}) == 4 for row in rotations)
        assert len(rotations[0]["image"]) > 64 and {row["image"] for row in rotations[1:]} == {str(base)}


@pytest.mark.parametrize("split", SPLITS)
def test_seed_and_mmvet_files(benchmarks: Path, split: str):
    content = json.loads((benchmarks / split / "seed" / "SEED-Bench.json").read_text())
    assert len(content["questions"]) == 24 and set(content["question_type"].values()) == set(range(1, 10))
    for row in content["questions"]:
        options = [row[f"choice_{letter}"] for letter in "abcd"]
        assert len(set(options)) == 4 and row["answer"] in "ABCD" and row["data_type"] == "image"
        assert (benchmarks / split / "images" / row["data_id"]).is_file()
    records = json.loads((benchmarks / split / "mmvet" / "mm-vet.json").read_text())
    assert list(records) == [f"v1_{number}" for number in range(24)]
    assert all((benchmarks / split / "images" / record["imagename"]).is_file() for record in records.values())
    assert all(record["answer"] and record["capability"] for record in records.values())


def test_conversations_cover_all_kinds_evenly(benchmarks: Path, shipped):
    records = json.loads((benchmarks / "train" / "llava.json").read_text())
    assert {record["image"] for record in records} == {sample.key for sample in shipped["train"]}
    assert len({record["id"] for record in records}) == len(records)
    turns = []
    for record in records:
        messages = record["conversations"]
        assert [message["from"] for message in messages] == ["human", "gpt"] * (len(messages) // 2)
        assert [message["value"].startswith("<image>\n") for message in messages] == [True] + [False] * (
            len(messages) - 1
        )
        turns += list(zip(messages[::2], messages[1::2], strict=True))
    assert len(records) == 3 * len(shipped["train"])
    answers = Counter(answer["value"] for _, answer in turns)
    assert answers["yes"] == answers["no"] == 4 * len(shipped["train"])
    assert all(answers[letter] / sum(answers[x] for x in "ABCD") == pytest.approx(0.25, abs=0.02) for letter in "ABCD")
    for question, answer in turns:
        short = question["value"].endswith("\nAnswer the question using a single word or phrase.")
        assert short == (answer["value"] not in "ABCD")


def test_the_question_alone_does_not_give_the_answer_away(benchmarks: Path):
    """Whoever has learned from the conversations how often each question is answered with yes gets half right."""
    said = defaultdict(Counter)
    for record in json.loads((benchmarks / "train" / "llava.json").read_text()):
        messages = record["conversations"]
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            said[question["value"].removeprefix("<image>\n").split("\n")[0]][answer["value"]] += 1
    right = []
    for path in benchmarks.glob("unseen_style/pope/*.json"):
        for row in map(json.loads, path.read_text().splitlines()):
            guess = "yes" if said[row["text"]]["yes"] > said[row["text"]]["no"] else "no"
            right.append(guess == row["label"])
    assert np.mean(right) < 0.6


def test_a_second_build_replaces_the_first(tmp_path: Path, shipped, monkeypatch):
    read = {f"{split}-*.tar.gz": samples for split, samples in shipped.items()}
    monkeypatch.setattr("data.emoji_benchmarks.iterate_shards", lambda spec: read[Path(spec).name])
    monkeypatch.setattr("data.emoji_benchmarks.training_conversations", lambda *_: [])
    build(SHARDS, tmp_path, pictures_per_split=3, seed=0)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    build(SHARDS, tmp_path, pictures_per_split=3, seed=1)
    assert {path.name for path in tmp_path.glob("train/images/*")}.isdisjoint(
        path.name for path in first if path.parent == tmp_path / "train/images"
    )
    build(SHARDS, tmp_path, pictures_per_split=3, seed=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == first
    with pytest.raises(ValueError, match="at least 1"):
        build(SHARDS, tmp_path, pictures_per_split=0, seed=0)


def test_manifest_and_repetition(benchmarks: Path, shipped):
    manifest = json.loads((benchmarks / "manifest.json").read_text())
    assert manifest["splits"]["unseen_style"]["mmbench"] == {"questions": 24, "rows": 96}
    maker = QuestionMaker(sample.metadata for sample in shipped["train"])
    sample = shipped["train"][100]
    assert training_conversations(sample, maker, 0) == training_conversations(sample, maker, 0)
    assert training_conversations(sample, maker, 0) != training_conversations(sample, maker, 1)


def test_wrong_answers_are_wrong(shipped):
    maker = QuestionMaker(sample.metadata for sample in shipped["train"])
    for sample in shipped["unseen_style"]:
        rng = random.Random(sample.key)
        for kind in maker.kinds(sample.metadata):
            wrong = maker.wrong(kind, sample.metadata, rng, 3)
            assert len({*wrong, truth(kind, sample.metadata)}) == 4
        for negatives in ("random", "popular", "adversarial"):
            (name,) = maker.wrong("subject", sample.metadata, rng, 1, negatives)
            assert split_group(maker.shown[name]["concept"]) != split_group(sample.metadata["concept"])
    names = {sample.metadata["name"]: sample.metadata for sample in shipped["train"]}
    firefighter, woman = names["firefighter"], names["woman running"]
    for _ in range(300):
        (wrong_name,) = maker.wrong("subject", firefighter, rng, 1, "popular")
        assert wrong_name not in ("person", "man firefighter", "woman firefighter")
        assert maker.wrong("subject", woman, rng, 1, "adversarial") not in (["person running"], ["man running"])


def test_what_pictures_answer(shipped):
    by_name = {sample.metadata["name"]: sample.metadata for samples in shipped.values() for sample in samples}
    assert truth("color", by_name["red apple"]) == "red"
    assert truth("count", by_name["two women holding hands"]) == "2"
    assert truth("count", by_name["family with a man, a woman and two boys"]) == "4"
    assert truth("count", by_name["red apple"]) is None
    assert truth("category", by_name["red apple"]) == "food and drink"
    assert {truth("skin_tone", sample.metadata) for sample in shipped["train"]} == {None, *TONES.values()}
    assert is_plural("clapping hands") and not is_plural("red apple")
