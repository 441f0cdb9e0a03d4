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
