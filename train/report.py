"""`dualtoken report RUN`: RUN/metrics.json with every figure, and RUN/report.html, a self-contained page of them.

The page needs neither scripts nor network: pictures are data URIs, curves are inline SVG, the style is inside. It reads
what the stages left (train/report_data.py) and computes nothing that they did not measure.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from train import report_sections as sections
from train.report_data import RunData, collect_metrics, read_run
from train.report_html import page, tile
from train.run import flatten, write_atomically

# Headline figures: name, key with underscores, its format, its unit, and the figures that it must be seen beside.
TILES = (
    (
        "Reconstruction of unseen concepts",
        "reconstruction_psnr",
        "{:.1f}",
        "dB",
        {"reconstruction_ssim": "SSIM {reconstruction_ssim:.3f}"},
    ),
    (
        "Pixel codebook in use",
        "codebook_usage_pixel",
        "{:.0%}",
        "of entries",
        {"codebook_usage_semantic": "semantic {codebook_usage_semantic:.0%}"},
    ),
    (
        "Zero-shot accuracy from codes",
        "zero_shot_ratio_to_tower",
        "{:.0%}",
        "of the tower’s",
        {
            "zero_shot_quantized": "{zero_shot_quantized:.1%}",
            "zero_shot_tower": "tower {zero_shot_tower:.1%}",
            "zero_shot_chance": "chance {zero_shot_chance:.1%}",
        },
    ),
    (
        "Loss on the next pixel code, held out",
        "ntp_pixel_ratio_to_unigram",
        "{:.2f}",
        "× unigram",
        {
            "ntp_semantic_ratio_to_unigram": "semantic codes {ntp_semantic_ratio_to_unigram:.2f}",
            "ntp_text_ratio_to_unigram": "text {ntp_text_ratio_to_unigram:.2f}",
        },
    ),
    (
        "Captions found from drawn images",
        "generation_cfg3_retrieval_over_chance",
        "{:.1f}",
        "× chance",
        {"generation_cfg1_retrieval_over_chance": "without guidance {generation_cfg1_retrieval_over_chance:.1f} ×"},
    ),
    (
        "Drawn in the style asked for",
        "generation_cfg3_style_accuracy",
        "{:.0%}",
        "",
        {"generation_chance_style_accuracy": "chance {generation_chance_style_accuracy:.0%}"},
    ),
    (
        "Yes/no questions, unseen style",
        "yes_no_unseen_style_accuracy",
        "{:.0%}",
        "right",
        {
            "yes_no_unseen_style_constant_answer": "constant answer {yes_no_unseen_style_constant_answer:.0%}",
            "yes_no_unseen_concept_accuracy": "unseen concepts {yes_no_unseen_concept_accuracy:.0%}",
        },
    ),
)


def write_report(folder: str | Path) -> Path:
    """Writes both files and returns the page's path. Raises FileNotFoundError or ValueError where there is no run."""
    run = read_run(folder)
    metrics = collect_metrics(run)
    write_atomically(run.folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    path = run.folder / "report.html"
    write_atomically(path, render(run, metrics))
    return path


def render(run: RunData, metrics: dict[str, Any]) -> str:
    if run.is_pipeline:
        parts = [make(run) for make in (sections.drawing, sections.answering, sections.scores, sections.tokenizer)]
        parts += [sections.language_model(run), sections.tower(run), sections.times(run, metrics)]
    else:
        parts = [sections.single_stage(run)]
        parts += [make(run) for make in (sections.answering, sections.scores) if run.evaluations]
    parts.append(sections.configs(run))
    header = f'<dl class="tiles">{"".join(headline(metrics))}</dl>' if run.is_pipeline else ""
    return page(f"DualToken: {run.folder.resolve().name}", subtitle(run), header, parts, footer())


def headline(metrics: dict[str, Any]) -> list[str]:
    """The tiles at the top. A figure that was not measured has none, and a companion that was not is left out."""
    figures = {name.replace(".", "_"): value for name, value in flatten(metrics).items()}
    tiles = []
    for name, key, shape, unit, companions in TILES:
        if key in figures:
            beside = ", ".join(text.format(**figures) for needed, text in companions.items() if needed in figures)
            tiles.append(tile(name, shape.format(figures[key]), unit, beside))
    if "seconds_total" in figures:
        peak = f"{figures['peak_memory_gb']:.1f} GB of memory at most" if "peak_memory_gb" in figures else ""
        tiles.append(tile("All stages", sections.duration(figures["seconds_total"]), "", peak))
    return tiles


def subtitle(run: RunData) -> str:
    if not run.is_pipeline:
        return "One evaluation." if run.evaluations else "One stage of training."
    return (
        "A unified multimodal LLM with dual visual vocabularies: one model that sees, answers and draws, trained from "
        "nothing by one command, with everything it measured on the way."
    )


def footer() -> str:
    try:
        return f"dualtoken {version('dualtoken')}"
    except PackageNotFoundError:
        return "dualtoken"
