"""The curves of a stage as one picture, where a page cannot hold the report.

python -m train.curve_sheet runs/demo/pretrain docs/results/training/pretrain.png
"""

import math
import sys
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.launch import sentence
from train.report_curves import Panel, levels, stage_curves
from train.report_data import read_run
from train.report_plots import Curve

COLUMNS = 3


def draw_sheet(folder: str | Path, out: str | Path) -> Path:
    """Every panel that the log of a stage's run folder fills. Raises FileNotFoundError or ValueError."""
    stages = read_run(folder).stages
    if len(stages) != 1:
        raise ValueError(f"{folder} is a pipeline: give the folder of one of its stages, {', '.join(stages)}")
    ((name, stage),) = stages.items()
    panels = stage_curves(stage.log)
    if not panels:
        raise ValueError(f"{folder}/log.jsonl has no curves yet")
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(3.9 * COLUMNS, 2.4 * rows), layout="constrained", dpi=80)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, (panel, curves) in zip(grid, panels, strict=False):
        _draw(axes, panel, curves, levels(panel, stage.result.get("ntp")))
    for axes in grid[len(panels) :]:
        axes.axis("off")
    figure.suptitle(f"{name}: {stage.log[-1]['step']} steps", fontsize=11)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Software": None})
    return Path(out)


def _draw(axes: Axes, panel: Panel, curves: list[Curve], lines: dict[str, float]) -> None:
    shades = colormaps["viridis"] if panel.ordered else colormaps["tab10"]
    for place, curve in enumerate(curves):
        color = shades(place / max(len(curves), 2)) if panel.ordered else shades(place)
        axes.plot(curve.steps, curve.values, color=color, marker=curve.marker, linewidth=1.2, label=curve.label)
    for label, level in lines.items():
        axes.axhline(level, color="grey", linewidth=1, linestyle=(0, (4, 3)), label=label)
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(labelsize=7, length=0)
    axes.grid(axis="y", linewidth=0.4)
    if len(curves) + len(lines) > 1:
        axes.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise ValueError("give the run folder of a stage, and the picture to write")
        print(f"written to {draw_sheet(*sys.argv[1:])}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {sentence(error)}")
