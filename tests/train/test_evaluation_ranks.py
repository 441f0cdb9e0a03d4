"""`evaluate` and `draw-benchmark` with a real, tiny model: two processes leave what one leaves, byte for byte."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import dualtoken
from data.images import ImageTransform
from tests.eval.test_benchmark_data import write_split
from tests.eval.tiny_unified import export
from tests.train.tiny_mllm import run_ranks
from train import draw_benchmark, evaluate
from train.draw_benchmark import DrawBenchmarkConfig
from train.evaluate import EvaluateConfig

PROMPTS = ["a red apple", "What is this? 3d style, a red apple", "3d", "is this a red style", "apple", "What is red?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """model/, benchmarks/val/, prompts.txt and meta_data.json"""
    folder = tmp_path_factory.mktemp("ranks")
    export(str(folder / "model"))
    write_split(folder / "benchmarks/val")
    for i, name in enumerate(("2.png", "3.png")):  # SEED-Bench asks about three pictures, so that both processes answer
        Image.new("RGB", (8, 8), ("blue", "white")[i]).save(folder / f"benchmarks/val/images/{name}")
    seed = folder / "benchmarks/val/seed/SEED-Bench.json"
    content = json.loads(seed.read_text())
    for number, row in enumerate(content["questions"][:3], start=1):
        row["data_id"] = str(number)
    seed.write_text(json.dumps(content))
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    records = {f"{i}": {"category": ("art", "food")[i % 2], "prompt": text} for i, text in enumerate(PROMPTS)}
    (folder / "meta_data.json").write_text(json.dumps(records))
    return folder


def configs(folder: Path, out: Path) -> tuple[EvaluateConfig, DrawBenchmarkConfig]:
    model = str(folder / "model")
    answering = EvaluateConfig(
        out=str(out / "eval"),
        model=model,
        benchmarks=str(folder / "benchmarks"),
        split="val",
        batch_size=1,
        max_new_tokens=4,
        precision="fp32",
    )
    drawing = DrawBenchmarkConfig(
        out=str(out / "drawn"),
        model=model,
        prompts={"prompts": str(folder / "prompts.txt"), "mjhq": str(folder / "meta_data.json")},
        num_pictures=2,
        batch_size=5,
        precision="fp32",
    )
    return answering, drawing


def both(answering: EvaluateConfig, drawing: DrawBenchmarkConfig) -> None:
    evaluate.main(answering)
    draw_benchmark.main(drawing)


def in_rank(answering: EvaluateConfig, drawing: DrawBenchmarkConfig) -> None:
    evaluate.leave_world = lambda: None  # the second stage finds the process group of the first
    both(answering, drawing)


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for pattern in patterns for p in folder.glob(pattern)}


def test_two_processes_leave_what_one_leaves(folder, tmp_path, capsys):
    alone, together = configs(folder, tmp_path / "one"), configs(folder, tmp_path / "two")
    both(*alone)
    assert "mjhq: 6 pictures of 6 prompts" in capsys.readouterr().out
    run_ranks(in_rank, 2, *together)
    one, two = tmp_path / "one/drawn", tmp_path / "two/drawn"
    pictures = files(one, "**/*.png")
    assert len(pictures) == 6 * 2 + 6 and len(set(pictures.values())) > 12
    assert files(two, "**/*.png") == pictures
    assert files(two, "*/pictures.jsonl", "*/made_from.json") == files(one, "*/pictures.jsonl", "*/made_from.json")
    assert json.loads((two / "manifest.json").read_text())["processes"] == 2

    one, two = tmp_path / "one/eval", tmp_path / "two/eval"
    answers = [path for path in two.glob("answers/seed/*/rank-*.jsonl") if path.read_text()]
    assert len(answers) == 2  # both answered
    submissions = ("seed/*", "mmvet/*", "examples.json")
    assert files(two, *submissions) == files(one, *submissions)

    (two.parent / "drawn/mjhq/food/3.png").unlink()  # and one process mends what two have left
    draw_benchmark.main(together[1])
    assert files(two.parent / "drawn", "**/*.png") == pictures


def test_pictures_are_cropped_as_the_tokenizer_says_unless_told_otherwise(folder, tmp_path, monkeypatch):
    transforms = []
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, transform, **__: transforms.append(transform) or {"tasks": {}})
    answering, _ = configs(folder, tmp_path)
    for config in (answering, replace(answering, crop="pad")):
        evaluate.main(config)
    assert transforms == [None, ImageTransform(16, "pad")]  # None: see eval/responder.py


def test_the_command_line_draws_marks_a_limit_and_names_mistakes(folder, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"out: {tmp_path}/out\nmodel: {folder}/model\nprompts: {{prompts: {folder}/prompts.txt}}\nlimit: 1\n"
    )
    assert dualtoken.main(["draw-benchmark", str(config), "sampling.cfg=2"]) == 0
    shown = capsys.readouterr().out
    assert "prompts (partial): 1 pictures of 1 prompts" in shown and "not graded" in shown
    assert json.loads((tmp_path / "out/result.json").read_text())["partial"]
    for override, message in (
        ("limit=0", "limit=0 must be at least 1"),
        ("tasks=[dpg]", "where are the prompts of dpg?"),
        ("tasks=[imagenet]", "unknown benchmark 'imagenet': choose from geneval"),
        ("prompts.prompts=nowhere.txt", "nowhere.txt does not exist"),
        ("model=nowhere", "nowhere"),
    ):
        assert dualtoken.main(["draw-benchmark", str(config), override]) == 2
        assert message in capsys.readouterr().err


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_benchmark.open_all(DrawBenchmarkConfig())
