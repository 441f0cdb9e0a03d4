"""Curves of a run as inline SVG, drawn by matplotlib and coloured by the page's style sheet.

matplotlib writes literal colours; here each is a placeholder that becomes a CSS variable afterwards, so that one
drawing serves the light and the dark page. Text stays text: it takes the page's font and can be searched.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

_INK, _GRID = "#010101", "#020202"
_NUM_COLORS = 8  # --series-0 … --series-7 and --depth-0 … --depth-7 in the style sheet


@dataclass(frozen=True)
class Curve:
    label: str
    steps: list[float]
    values: list[float]

    @property
    def marker(self) -> str | None:
        """Of so few points that a line may be of one, and none to see."""
        return "." if len(self.steps) < 5 else None


def draw_curves(
    curves: list[Curve], *, ordered: bool = False, log_scale: bool = False, lines: dict[str, float] | None = None
) -> str:
    """One chart. `ordered`: the curves are depths, in shades of one colour; `lines`: dashed levels to compare with."""
    style = {"svg.fonttype": "none", "svg.hashsalt": curves[0].label, "font.family": "sans-serif", "font.size": 9}
    with matplotlib.rc_context(style):
        figure, axes = plt.subplots(figsize=(4.9, 2.7), layout="constrained")
        for index, curve in enumerate(curves):
            color = _placeholder(index, ordered)
            if len(curve.values) > 150:  # the measured points faintly, their moving average as the line
                axes.plot(curve.steps, curve.values, color=color, linewidth=0.8, alpha=0.25)
            line = {"color": color, "marker": curve.marker, "linewidth": 1.6}
            axes.plot(curve.steps, _smooth(curve.values), label=curve.label, **line)
        for label, level in (lines or {}).items():
            axes.axhline(level, color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=label)
        _dress(axes, log_scale)
        if len(curves) + len(lines or {}) > 1:
            axes.legend(frameon=False, labelcolor=_INK, fontsize=8, ncols=1 + (len(curves) > 4), handlelength=1.4)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return _for_the_page(text.getvalue())


def _dress(axes: plt.Axes, log_scale: bool) -> None:
    if log_scale:
        axes.set_yscale("log")
    axes.set_xlabel("step", color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)


def _smooth(values: list[float]) -> list[float]:
    """Moving average over 2 % of the points, short at the start; few points stay as they are."""
    if len(values) <= 150:
        return values
    decay, mean, weight, smooth = 1 - 1 / max(len(values) * 0.02, 1.0), 0.0, 0.0, []
    for value in values:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        smooth.append(mean / weight)
    return smooth


def _placeholder(index: int, ordered: bool) -> str:
    return f"#0{'b' if ordered else 'a'}000{index % _NUM_COLORS}"


def _for_the_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"#0a000(\d)", r"var(--series-\1)", svg)
    svg = re.sub(r"#0b000(\d)", r"var(--depth-\1)", svg)
    svg = svg.replace(_INK, "var(--muted)").replace(_GRID, "var(--line)")
    svg = re.sub(r"font-family: [^;]+; ", "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]+"', "<g", svg)  # ids of one drawing would clash with those of the next
    svg = re.sub(r"(\d\.\d\d)\d{3,}", r"\1", svg)  # coordinates; labels of ticks have fewer digits
    return re.sub(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', r'<svg \1 role="img">', svg, count=1)


def curve_from(log: list[dict], name: str, label: str) -> Curve | None:
    """The curve of one metric in the lines of a log.jsonl, or None where no line has it."""
    points = [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    return Curve(label, [step for step, _ in points], [value for _, value in points]) if points else None
