"""`dualtoken report --compare RUN RUN …`: one page with the figures and curves of several runs side by side.

A row is a figure that at least one run measured; what a run did not measure is a dash. Published figures stand in a
table of its own, with source and protocol (train/published.yaml): a shared row would compare them with ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from train.report_data import RunData, collect_metrics, read_run
from train.report_html import Section, chart, charts, page, table
from train.report_plots import curve_from, draw_curves
from train.run import flatten, write_atomically

ABSENT = "–"
_LEFT_OUT = ("machine",)  # no figures
_CURVES = ("loss", "pixel.loss", "semantic.loss", "text.loss", "reconstruction", "semantic", "psnr")


def write_comparison(folders: Sequence[str], out: str | Path) -> Path:
    """Raises FileNotFoundError or ValueError where a folder holds no run, or for fewer than two runs."""
    if len(set(folders)) < 2:
        raise ValueError("--compare needs at least two different run folders; one alone is `dualtoken report RUN`")
    runs = dict(zip(labels(folders), map(read_run, folders), strict=True))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = [*figure_sections(runs), *curve_sections(runs), published_section()]
    write_atomically(path, page("DualToken: runs compared", ", ".join(folders), "", sections, ""))
    return path


def labels(folders: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"two of the runs to compare are the same folder: {', '.join(folders)}")


def figure_sections(runs: Mapping[str, RunData]) -> list[Section]:
    """A table for each group of figures, the first part of their names; in the order of the first run that has them."""
    columns = {
        name: {key: value for key, value in flatten(collect_metrics(run)).items() if not isinstance(value, str)}
        for name, run in runs.items()
    }
    groups: dict[str, dict[str, None]] = {}
    for figures in columns.values():
        for key in figures:
            groups.setdefault(key.partition(".")[0], {})[key] = None
    return [
        Section(
            group,
            group.replace("_", " "),
            "",
            table(["", *columns], [[key, *(_text(figures.get(key)) for figures in columns.values())] for key in keys]),
        )
        for group, keys in groups.items()
        if group not in _LEFT_OUT
    ]


def curve_sections(runs: Mapping[str, RunData]) -> list[Section]:
    """Of every stage that two runs share, the curves that both logged."""
    sections = []
    for stage in dict.fromkeys(stage for run in runs.values() for stage in run.stages):
        drawn = []
        for metric in _CURVES:
            found = [
                curve_from(run.stages[stage].log, metric, name) for name, run in runs.items() if stage in run.stages
            ]
            curves = [curve for curve in found if curve is not None]
            if len(curves) > 1:
                drawn.append(chart(metric, draw_curves(curves)))
        if drawn:
            sections.append(Section(f"curves-{stage}", f"Curves of {stage}", "", charts(drawn)))
    return sections


def published_section() -> Section:
    rows = [
        (entry["model"], name, _text(value), entry["source"], entry["protocol"])
        for entry in yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
        for name, value in entry["figures"].items()
    ]
    lead = "Of other data and other sizes than a laptop's run: compare only where the protocol is the same."
    header = ("model", "figure", "value", "source", "protocol")
    return Section("published", "Published figures", lead, table(header, rows, strong=2))


def _text(value: object) -> str:
    if value is None:
        return ABSENT
    return f"{value:.4g}" if isinstance(value, float) else str(value)
