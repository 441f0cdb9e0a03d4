"""Which curves of a stage's log share a chart. A chart appears where the log has its metrics, whatever the stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from train.report_html import chart, charts
from train.report_plots import Curve, curve_from, draw_curves


@dataclass(frozen=True)
class Panel:
    title: str
    curves: dict[str, str]  # pattern of a metric's name → label, which may use the pattern's groups
    ordered: bool = False  # one curve per depth
    unigram: str = ""  # the part of `ntp` whose unigram loss is drawn as a level


def _next_token(part: str, title: str) -> Panel:
    curves = {rf"{part}\.loss": "training", rf"validation\.{part}\.loss": "held out"}
    return Panel(f"{title}: nats", curves, unigram=part)


PANELS = (
    Panel("Loss that is minimised", {r"loss": "training", r"validation\.loss": "held out"}),
    _next_token("text", "Next text token"),
    _next_token("pixel", "Next pixel code, mean over depths"),
    _next_token("semantic", "Next semantic code, mean over depths"),
    Panel("Pixel codes by depth: nats", {r"pixel\.depth(\d+)\.loss": r"depth \1"}, ordered=True),
    Panel("Semantic codes by depth: nats", {r"semantic\.depth(\d+)\.loss": r"depth \1"}, ordered=True),
    Panel("Share of targets predicted exactly", {r"(text|pixel|semantic)\.accuracy": r"\1"}),
    Panel("Reconstruction: mean squared error", {r"reconstruction": "pixel"}),
    Panel("Semantic features against the tower's: MSE − cosine", {r"semantic": "patches", r"pooled": "pooled"}),
    Panel("Commitment", {r"(pixel|semantic)_commitment": r"\1"}),
    Panel("Perceptual loss", {r"perceptual": "LPIPS"}),
    Panel("Codebook entries in use, per batch", {r"(pixel|semantic)_usage": r"\1"}),
    Panel("Codebook perplexity, per batch", {r"(pixel|semantic)_perplexity": r"\1"}),
    Panel("Dead codebook entries restarted, per step", {r"(pixel|semantic)_restarts": r"\1"}),
    Panel("Norm of the gradient", {r"grad_norm": "all", r"discriminator\.grad_norm": "discriminator"}),
    Panel("Norm of the gradient by part", {r"grad_norm\.(\w+)": r"\1"}),
    Panel("Discriminator: mean logit", {r"discriminator\.(real|fake)": r"\1"}),
    Panel("Discriminator: share of patches told right", {r"discriminator\.accuracy": "accuracy"}),
    Panel("Images per second of training", {r"images_per_second": "images"}),
    Panel("Model FLOPs, as a share of the machine's products (MFU)", {r"mfu": "MFU"}),
    Panel("Share of the time that the loop waited for data", {r"data\.wait_share": "waited"}),
    Panel("Memory of a process at most, GB", {r"peak_memory_gb": "memory"}),
)


def stage_charts(log: list[dict[str, Any]], ntp: dict[str, Any] | None = None) -> str:
    """All charts that the lines of a log.jsonl allow."""
    return charts(
        [
            chart(panel.title, draw_curves(curves, ordered=panel.ordered, lines=levels(panel, ntp)))
            for panel, curves in stage_curves(log)
        ]
    )


def stage_curves(log: list[dict[str, Any]]) -> list[tuple[Panel, list[Curve]]]:
    """The panels that the lines of a log.jsonl fill, each with its curves."""
    names = sorted({name for line in log for name in line})
    panels = [(panel, [*_curves(panel, log, names)]) for panel in PANELS]
    return [(panel, curves) for panel, curves in panels if curves]


def levels(panel: Panel, ntp: dict[str, Any] | None) -> dict[str, float]:
    """What the curves are to be compared with, from the `ntp` of a result.json."""
    unigram = (ntp or {}).get(panel.unigram, {}).get("unigram")
    return {"unigram": unigram} if unigram else {}


def _curves(panel: Panel, log: list[dict[str, Any]], names: list[str]) -> Iterator[Curve]:
    for pattern, label in panel.curves.items():
        for name in names:
            match = re.fullmatch(pattern, name)
            curve = curve_from(log, name, match.expand(label)) if match else None
            if curve is not None:
                yield curve
