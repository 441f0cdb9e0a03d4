"""The picture of a stage's curves: a panel for each that the log fills, one sentence where there is none."""

import json

import pytest
from PIL import Image

from train.curve_sheet import draw_sheet


def test_every_panel_of_the_log_is_drawn(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    names = ("loss", "pixel.depth1.loss", "pixel.depth2.loss", "grad_norm.llm", "mfu")  # four panels, two rows
    lines = [{"step": step, **dict.fromkeys(names, 1 / step)} for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    two_rows = Image.open(draw_sheet(tmp_path, tmp_path / "new" / "sheet.png")).size
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n")
    one_row = Image.open(draw_sheet(tmp_path, tmp_path / "one.png")).size
    assert two_rows == (one_row[0], 2 * one_row[1])


def test_a_run_without_curves_is_told(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ValueError, match="no curves yet"):
        draw_sheet(tmp_path, tmp_path / "sheet.png")
