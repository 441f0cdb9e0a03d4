import json
from pathlib import Path

import pytest

import dualtoken
from train.compare import labels


def make_run(folder: Path, psnr: float, losses: list[float], zero_shot: float | None = None) -> str:
    result = {"reconstruction": {"psnr": psnr}, **({"zero_shot": {"quantized": zero_shot}} if zero_shot else {})}
    for stage in ("tokenizer-eval", "pretrain"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "config.yaml").write_text("out: x\n")
    (folder / "tokenizer-eval/result.json").write_text(json.dumps(result))
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, start=1)]
    (folder / "pretrain/log.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_figures_and_curves_stand_side_by_side(tmp_path: Path):
    runs = [make_run(tmp_path / "a", 23.25, [3.0, 2.0]), make_run(tmp_path / "b", 25.5, [2.5, 1.5], zero_shot=0.5)]
    assert dualtoken.main(["report", "--compare", *runs, "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<tr><td>reconstruction.psnr</td><td>23.25</td><td>25.5</td></tr>" in text
    assert "<tr><td>zero_shot.quantized</td><td>–</td><td>0.5</td></tr>" in text
    assert text.count("<svg") == 1 and "Curves of pretrain" in text
    assert "28.69" in text and "arXiv 2503.14324" in text and "dualtoken-jpeg" in text


def test_scores_of_either_layout_and_of_the_scorers_stand_side_by_side(tmp_path: Path):
    """RUN/eval/scores.json of the official files in a run, OUT given as a run, RUN/eval/SPLIT, RUN/scores/NAME.json."""

    def scores(folder: Path, overall: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        task = {"model": {"overall": overall}, "headline": "overall", "partial": False, "num_questions": 2}
        (folder / "scores.json").write_text(json.dumps({"tasks": {"vqav2": task}, "splits": {"vqav2": "val2014"}}))

    run, out = Path(make_run(tmp_path / "a", 23.25, [3.0])), tmp_path / "out"
    result = {"rfid": {"clean": 4.5}, "flickr8k": {"quantized": {"image_to_text": {"recall@1": 0.25}}}}
    (run / "tokenizer-eval/result.json").write_text(json.dumps(result))
    scores(run / "eval", 71.5)
    scores(run / "eval/unseen_style", 31.5)
    (run / "scores").mkdir()
    (run / "scores/geneval.json").write_text(json.dumps({"overall": 0.75, "per_image": {"a": 1}, "protocol": "p"}))
    scores(out, 61.5)
    (out / "config.yaml").write_text("out: x\n")
    assert dualtoken.main(["report", "--compare", str(run), str(out), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<tr><td>scores.eval.vqav2.model.overall</td><td>71.5</td><td>61.5</td></tr>" in text
    assert "<tr><td>scores.unseen_style.vqav2.model.overall</td><td>31.5</td><td>–</td></tr>" in text
    assert "<tr><td>rfid.clean</td><td>4.5</td><td>–</td></tr>" in text
    assert "flickr8k.quantized.image_to_text.recall@1" in text
    assert "<tr><td>scored.geneval.overall</td><td>0.75</td><td>–</td></tr>" in text and "per_image" not in text
    assert dualtoken.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Official files" in page and "61.5" in page and "unseen_style" not in page


def test_runs_are_told_apart_by_the_end_of_their_paths():
    assert labels(["runs/x/demo", "runs/y/demo"]) == ["x/demo", "y/demo"]
    assert labels(["runs/a", "runs/b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="same folder"):
        labels(["runs/a", "runs/a"])


@pytest.mark.parametrize("arguments, said", [
    (["report"], "RUN"),
    (["report", "--compare", "one"], "at least two"),
    (["report", "run", "--compare", "a", "b"], "either"),
    (["report", "--compare", "no/such", "no/other"], "does not exist"),
])  # fmt: skip
def test_mistakes_are_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture):
    assert dualtoken.main(arguments) == 2
    assert said in capsys.readouterr().err
