"""The runner on a tiny split in the official formats, with a made-up model that knows, guesses or repeats.

Long because every benchmark's files of that split, made here once, serve every question about a run.
"""

import base64
import csv
import io
import json

import pytest
from PIL import Image

from eval import mmbench, mme, pope, vqav2
from eval.benchmark import Question
from eval.runner import open_benchmarks, run_benchmarks, take

SPLIT = "unseen_style"
COLORS = ("red", "green", "blue", "black")


def picture(color):
    data = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(data, "PNG")
    return data.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_vqav2(folder):
    questions, annotations = [], []
    for i, color in enumerate(COLORS):
        for kind, text, answer in (("other", "What color?", color), ("yes/no", "Is it red?", "yes" if not i else "no")):
            ids = {"question_id": 10 * i + len(kind), "image_id": i}
            questions.append({**ids, "question": text})
            people = [{"answer": answer, "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]
            types = {"question_type": text.split()[0].lower(), "answer_type": kind}
            annotations.append({**ids, **types, "multiple_choice_answer": answer, "answers": people})
    write(folder / f"v2_OpenEnded_mscoco_{SPLIT}_questions.json", {"questions": questions})
    write(folder / f"v2_mscoco_{SPLIT}_annotations.json", {"annotations": annotations})


def write_mme(folder):
    for color in COLORS:
        lines = [
            f"Is it {other}? Please answer yes or no.\t{'Yes' if other == color else 'No'}" for other in (color, "x")
        ]
        write(folder / "color/questions_answers_YN" / f"{color}.txt", "\n".join(lines) + "\n")
        write(folder / "color/images" / f"{color}.png", picture(color))
        write(folder / "code_reasoning" / f"{color}.txt", "\n".join(lines))  # the flat layout
        write(folder / "code_reasoning" / f"{color}.png", picture(color))


def write_pope(folder):
    for name in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": i + 1, "image": f"COCO_{SPLIT}_{i // 2:012d}.jpg", "text": f"Is there {i}?", "label": label}
            for i, label in enumerate(("yes", "no") * 4)
        ]
        write(folder / f"coco_pope_{name}.json", "".join(json.dumps(row) + "\n" for row in rows))


def write_mmbench(folder):
    rows = []
    for i, color in enumerate(COLORS):
        for k in range(4):
            turned = [*COLORS[k:], *COLORS[:k]]
            image = base64.b64encode(picture(color)).decode() if k == 0 else ("" if i % 2 else str(i))
            cells = {"index": i + k * 1_000_000, "question": "Which color?", "hint": "Look." if i else "nan"}
            letters = dict(zip("ABCD", turned, strict=True))
            answer = "ABCD"[turned.index(color)]
            rows.append({**cells, **letters, "answer": answer, "category": "color", "image": image})
    folder.mkdir(parents=True)
    with open(folder / "mmbench.tsv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    for i, color in enumerate(COLORS):
        write(root / SPLIT / "images" / f"COCO_{SPLIT}_{i:012d}.png", picture(color))
    for name, write_benchmark in (
        ("vqav2", write_vqav2),
        ("mme", write_mme),
        ("pope", write_pope),
        ("mmbench", write_mmbench),
    ):
        write_benchmark(root / SPLIT / name)
    return root


def knows(questions, max_new_tokens):
    return [(place, question.reference) for place, question in enumerate(questions)]


def says(text):
    return lambda questions, max_new_tokens: [(place, text) for place, _ in enumerate(questions)]


ALL = ("vqav2", "mme", "pope", "mmbench")


def test_the_right_answers_score_all_there_is(data, tmp_path):
    result = run_benchmarks(open_benchmarks(data, SPLIT, ALL), knows, tmp_path)
    tasks = result["tasks"]
    assert tasks["vqav2"]["model"]["overall"] == 100
    assert (tasks["mme"]["model"]["perception"], tasks["mme"]["model"]["cognition"]) == (200, 200)
    assert tasks["pope"]["model"]["mean_f1"] == 1
    assert (tasks["mmbench"]["model"]["circular"], tasks["mmbench"]["model"]["unparsed"]) == (1, 0)
    assert result["yes_no_accuracy"] == 1
    assert result["num_yes_no_questions"] == 4 + 16 + 24
    for task in tasks.values():
        assert task["model"][task["headline"]] == task["ceiling"][task["headline"]] > task["chance"][task["headline"]]
    assert (result["partial"], result["split"]) == (False, SPLIT)
    assert json.loads((tmp_path / "scores.json").read_text()) == result


def test_a_constant_scores_what_the_constant_row_says(data, tmp_path):
    result = run_benchmarks(open_benchmarks(data, SPLIT, ALL), says("yes"), tmp_path)
    tasks = result["tasks"]
    assert tasks["vqav2"]["model"]["overall"] == pytest.approx(100 / 8)
    assert tasks["vqav2"]["constant"] == {"answer": "no", "overall": pytest.approx(300 / 8)}
    assert tasks["vqav2"]["chance"] == {"overall": pytest.approx(300 / 8)}  # free text: the best constant
    assert tasks["mme"]["model"]["tasks"] == {"color": 50, "code_reasoning": 50}
    assert tasks["mme"]["constant"]["perception"] == 50
    assert tasks["mme"]["chance"] == {"perception": 75, "cognition": 75}
    assert tasks["pope"]["model"]["mean_f1"] == tasks["pope"]["constant"]["mean_f1"] == pytest.approx(2 / 3)
    assert tasks["pope"]["chance"] == {"mean_f1": 0.5}
    assert tasks["mmbench"]["model"]["unparsed"] == 16
    assert tasks["mmbench"]["constant"]["vanilla"] == 0.25
    assert tasks["mmbench"]["chance"] == {"circular": pytest.approx(4**-4), "vanilla": 0.25}
    assert result["yes_no_accuracy"] == pytest.approx((1 + 8 + 12) / 44)
    assert result["yes_no_chance"] == pytest.approx(23 / 44)


def test_submissions_are_the_official_files_and_score_alone(data, tmp_path):
    replies = says(" Yes,\tindeed\n")  # the model's side strips; tabs and line breaks must not break MME's lines
    result = run_benchmarks(open_benchmarks(data, SPLIT, ALL), replies, tmp_path)
    folder = data / SPLIT
    alone = vqav2.score(
        *vqav2.load(
            folder / "vqav2" / f"v2_OpenEnded_mscoco_{SPLIT}_questions.json",
            folder / "vqav2" / f"v2_mscoco_{SPLIT}_annotations.json",
            tmp_path / "vqav2" / f"v2_OpenEnded_mscoco_{SPLIT}_dualtoken_results.json",
        )
    )
    assert alone["overall"] == result["tasks"]["vqav2"]["model"]["overall"]
    lines = (tmp_path / "mme/color.txt").read_text().splitlines()
    assert lines[:2] == [
        "black.png\tIs it black? Please answer yes or no.\tYes\tYes, indeed",
        "black.png\tIs it x? Please answer yes or no.\tNo\tYes, indeed",
    ]
    assert mme.score(mme.load(tmp_path / "mme"))["tasks"] == {"color": 50, "code_reasoning": 50}
    rows = {
        name: pope.load(folder / "pope" / f"coco_pope_{name}.json", tmp_path / "pope" / f"coco_pope_{name}.jsonl")
        for name in ("random", "popular", "adversarial")
    }
    assert pope.score(rows)["mean_f1"] == result["tasks"]["pope"]["model"]["mean_f1"]
    table = mmbench.score(mmbench.load(tmp_path / "mmbench/mmbench.tsv"))
    assert table["circular"] == result["tasks"]["mmbench"]["model"]["circular"] == 0
    assert json.loads((tmp_path / "mme/score.json").read_text())["partial"] is False


def test_prompts_are_those_of_llava(data):
    by_name = {benchmark.name: benchmark.questions() for benchmark in open_benchmarks(data, SPLIT, ALL)}
    short = "\nAnswer the question using a single word or phrase."
    letter = "\nAnswer with the option's letter from the given choices directly."
    assert by_name["vqav2"][0].prompt == "What color?" + short
    assert by_name["mme"][0].prompt == "Is it black?" + short
    assert by_name["pope"][0].prompt == "Is there 0?" + short
    options = "Which color?\nA. red\nB. green\nC. blue\nD. black"
    assert by_name["mmbench"][0].prompt == options + letter
    assert by_name["mmbench"][4].prompt == f"Look.\n{options}{letter}"
    assert {benchmark.name: benchmark.max_new_tokens for benchmark in open_benchmarks(data, SPLIT, ALL)} == {
        **dict.fromkeys(("vqav2", "mme", "pope"), 128),
        "mmbench": 1024,
    }


def test_the_workbook_holds_what_the_table_holds_as_text(data, tmp_path):
    pytest.importorskip("openpyxl")
    for answer in ("=5", "#N/A", "7"):  # a formula, an error and a number, to a spreadsheet
        opened = open_benchmarks(data, SPLIT, ["mmbench"])
        run_benchmarks(opened, says(answer), tmp_path, made_from={"model": answer})
        table = mmbench.load(tmp_path / "mmbench/mmbench.tsv")
        assert mmbench.load(tmp_path / "mmbench/mmbench.xlsx") == table and table[0].prediction == answer


def test_rotations_find_the_picture_of_their_question(data):
    [benchmark] = open_benchmarks(data, SPLIT, ["mmbench"])
    assert [question.image for question in benchmark.questions()] == [picture(c) for c in COLORS for _ in range(4)]


def test_a_limit_takes_whole_groups_and_marks_the_result(data, tmp_path):
    result = run_benchmarks(open_benchmarks(data, SPLIT, ALL), knows, tmp_path, limit=8)
    assert result["partial"] and result["limit"] == 8
    assert {name: task["num_questions"] for name, task in result["tasks"].items()} == dict.fromkeys(ALL, 8)
    assert result["tasks"]["vqav2"]["partial"] is False  # it has no more
    assert result["tasks"]["mmbench"]["model"]["circular"] == 1
    assert set(result["tasks"]["mme"]["model"]["tasks"]) == {"color", "code_reasoning"}
    with pytest.raises(ValueError, match="limit must be at least 1"):
        run_benchmarks(open_benchmarks(data, SPLIT, ALL), knows, tmp_path, limit=0)


def test_other_pictures_of_the_same_names_are_asked_about_again(data, tmp_path):
    asked = []

    def respond(questions, max_new_tokens):
        asked.extend(questions)
        return [(number, "red") for number in range(len(questions))]

    def run():
        asked.clear()
        run_benchmarks(open_benchmarks(data, SPLIT, ["vqav2"]), respond, tmp_path / "out")
        return len(asked)

    assert run() > 0 and run() == 0
    file = next((data / SPLIT / "images").glob("*.png"))
    content = file.read_bytes()
    write(file, content + b"\0")
    asked_again = run()
    write(file, content)
    assert asked_again > 0


def test_one_process_looks_at_the_files_for_all(data, tmp_path, monkeypatch):
    class Second:
        rank, size = 1, 2
        of_the_first = iter([{"benchmark": "vqav2"}, []])  # what decides the answers, and which are missing

        def gather(self, value):
            return [next(self.of_the_first), value]

        def barrier(self):
            return None

    monkeypatch.setattr("eval.runner.describe", None)
    assert run_benchmarks(open_benchmarks(data, SPLIT, ["vqav2"]), knows, tmp_path, ranks=Second()) == {}


def test_take_spreads_evenly():
    questions = [Question("", b"", str(i), "", i // 2, False, None) for i in range(20)]
    assert take(questions, 4) == [0, 1, 10, 11]
    assert len(take(questions, 1)) == 2
    assert take(questions, None) == take(questions, 99) == list(range(20))


def test_the_blind_row_is_that_of_the_blind_answers(data, tmp_path):
    result = run_benchmarks(open_benchmarks(data, SPLIT, ["mme"]), knows, tmp_path, respond_blind=says("no"))
    assert result["tasks"]["mme"]["model"]["perception"] == 200
    assert result["tasks"]["mme"]["blind"]["perception"] == 50
    assert (tmp_path / "blind/mme/color.txt").exists()


def test_other_tasks_join_the_same_models_and_another_models_go(data, tmp_path):
    def call(tasks, model, **options):
        opened = open_benchmarks(data, SPLIT, tasks)
        return run_benchmarks(opened, knows, tmp_path, made_from={"model": model}, **options)

    def submissions():
        return {path.name for name in (*ALL, "blind/mme") for path in (tmp_path / name).glob("*")}

    whole = call(ALL, "a", respond_blind=says("no"))
    everything = submissions()
    again = call(["vqav2"], "a")
    assert again["tasks"].keys() == whole["tasks"].keys() and submissions() == everything
    assert (again["splits"], again["num_yes_no_questions"]) == (whole["splits"], 44)
    assert json.loads((tmp_path / "manifest.json").read_text())["tasks"].keys() == whole["tasks"].keys()

    (tmp_path / "mmbench/notes.txt").touch()  # the user's own
    result = call(["mme", "pope"], "b", limit=2)  # of two splits of POPE
    assert result["tasks"].keys() == {"mme", "pope"} and result["num_yes_no_questions"] == 2 + 2
    assert not list((tmp_path / "blind").rglob("*.*")) and not list((tmp_path / "vqav2").iterdir())
    answered = json.loads((tmp_path / "pope/score.json").read_text()).keys() & {"random", "popular", "adversarial"}
    assert len(answered) == 2
    assert {path.stem.removeprefix("coco_pope_") for path in (tmp_path / "pope").glob("*.jsonl")} == answered
    assert [path.name for path in (tmp_path / "mmbench").iterdir()] == ["notes.txt"]


def test_examples_show_right_and_wrong_answers_with_their_pictures(data, tmp_path):
    run_benchmarks(open_benchmarks(data, SPLIT, ["vqav2", "mme"]), says("no"), tmp_path)
    examples = json.loads((tmp_path / "examples.json").read_text())
    kinds = {(example["benchmark"], example["right"]) for example in examples}
    assert kinds == {("vqav2", True), ("vqav2", False), ("mme", True), ("mme", False)}
    assert sum(example["benchmark"] == "mme" for example in examples) == 8
    for example in examples:
        assert example["prediction"] == "no"
        assert example["right"] == (example["reference"].lower() == "no")
        assert Image.open(tmp_path / example["image"]).size == (8, 8)


def test_a_split_without_public_answers_is_submitted_and_not_scored(data, tmp_path):
    root = tmp_path / "data" / SPLIT
    (root / "images").mkdir(parents=True)
    write_vqav2(root / "vqav2")
    (root / "vqav2" / f"v2_mscoco_{SPLIT}_annotations.json").unlink()
    for i in range(4):
        write(root / "images" / f"COCO_{SPLIT}_{i:012d}.jpg", picture("red"))
    result = run_benchmarks(open_benchmarks(tmp_path / "data", SPLIT, ["vqav2"]), says("red"), tmp_path / "out")
    assert "no public answers" in result["tasks"]["vqav2"]["model"]["not_scored"]
    assert result["yes_no_accuracy"] is None
    assert (tmp_path / "out/vqav2" / f"v2_OpenEnded_mscoco_{SPLIT}_dualtoken_results.json").exists()
    assert not (tmp_path / "out/vqav2/score.json").exists()


def test_what_is_missing_is_named(data, tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark gqa: choose from vqav2, mme, pope, mmbench"):
        open_benchmarks(data, SPLIT, ["gqa"])
    with pytest.raises(FileNotFoundError, match="no split 'val'"):
        open_benchmarks(data, "val", ALL)
    (tmp_path / SPLIT).mkdir()
    with pytest.raises(FileNotFoundError, match="has no mme here"):
        open_benchmarks(tmp_path, SPLIT, ["mme"])
    write_pope(tmp_path / SPLIT / "pope")
    with pytest.raises(FileNotFoundError, match="asks about the image COCO_unseen_style_000000000000"):
        open_benchmarks(tmp_path, SPLIT, ["pope"])[0].questions()
