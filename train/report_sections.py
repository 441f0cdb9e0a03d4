"""The sections of the report, each made from what a run holds; a part that is absent says which command makes it."""

from __future__ import annotations

from typing import Any

from train import report_html as html
from train.report_curves import stage_charts
from train.report_data import HELD_OUT, OFFICIAL, Evaluation, RunData, StageData
from train.report_html import Section
from train.run import flatten
from train.score_rows import ROWS, headline_figures

GUIDANCE = {"cfg1": "Guidance 1: the model alone", "cfg3": "Guidance 3: towards the caption"}
CEILINGS = {
    "reconstruction": "Ceiling: the true images through the tokenizer",
    "original": "The true images themselves",
}
BENCHMARKS = {
    "vqav2": ("VQAv2", "accuracy", "{:.1f}"),
    "mme": ("MME", "perception points", "{:.0f}"),
    "pope": ("POPE", "mean F1", "{:.3f}"),
    "mmbench": ("MMBench", "circular accuracy", "{:.3f}"),
    "seed": ("SEED-Bench image", "accuracy", "{:.3f}"),
    "mmvet": ("MM-Vet", "not graded here", "{:.1f}"),
}


def drawing(run: RunData) -> Section:
    stage = run.stages.get("generation")
    body = ""
    if stage is None or not stage.pictures:
        body += html.missing(
            "No pictures have been drawn yet.", "dualtoken eval-generation configs/tiny/generation.yaml"
        )
    else:
        for path in stage.pictures:
            body += html.picture(path, GUIDANCE.get(path.stem, path.stem.replace("-", " ").replace("_", " ")))
        body += _generation_table(stage.result)
    lead = "Images that the model drew from these captions; the tower, which knows both, then tells how well they fit."
    return Section("drawing", "Drawn from text", lead, body)


def answering(run: RunData) -> Section:
    body = ""
    for split in _splits(run):
        evaluation = run.evaluations.get(split)
        body += f"<h3>{_split_title(split)}</h3>"
        body += _answers(evaluation) if evaluation and evaluation.examples else _no_scores(split, "No answers")
    return Section(
        "answering",
        "Answers about images",
        "Some right and some wrong of each benchmark, whatever the accuracy; no picture was trained on.",
        body,
    )


def scores(run: RunData) -> Section:
    body = ""
    header = ("benchmark", "measure", "questions", *ROWS.values())
    for split in _splits(run):
        evaluation = run.evaluations.get(split)
        body += f"<h3>{_split_title(split)}</h3>"
        if evaluation is None:
            body += _no_scores(split, "No scores")
            continue
        rows = [_score_row(name, task) for name, task in evaluation.scores["tasks"].items()]
        if evaluation.scores.get("yes_no_accuracy") is not None:
            rows.append(_yes_no_row(evaluation.scores))
        keep = [i for i in range(len(header)) if any(row[i] != "–" for row in rows)]
        body += html.table([header[i] for i in keep], [[row[i] for i in keep] for row in rows], strong=keep.index(3))
        if evaluation.scores.get("partial"):
            body += f'<p class="muted">Only {evaluation.scores["limit"]} questions of each benchmark were asked.</p>'
    lead = (
        "Official formats and rules. Chance is a uniform choice; constant, the best single answer to everything; "
        "ceiling, the reference answers themselves through the same scorer."
    )
    return Section("scores", "Scores", lead, body)


def tokenizer(run: RunData) -> Section:
    evaluation, training, body = run.stages.get("tokenizer-eval"), run.stages.get("tokenizer"), ""
    if evaluation is None or not evaluation.result:
        body += html.missing(
            "The tokenizer has not been measured.", "dualtoken eval-tokenizer configs/tiny/tokenizer_eval.yaml"
        )
    else:
        for path in evaluation.pictures:
            body += html.picture(path, "Held-out images above, their reconstructions from pixel codes below.")
        body += _tokenizer_tables(evaluation.result)
    if training is None:
        body += html.missing("There is no training log.", "dualtoken train-tokenizer configs/tiny/tokenizer.yaml")
    else:
        body += "<h3>Training</h3>" + stage_charts(training.log)
        if training.pictures:
            body += html.picture(
                training.pictures[-1], f"The same held-out images in training, at {training.pictures[-1].stem}."
            )
    lead = "What is left of a picture in its pixel codes, and of its meaning in its semantic codes."
    return Section("tokenizer", "Tokenizer", lead, body)


def language_model(run: RunData) -> Section:
    body = ""
    for name in ("pretrain", "instruct"):
        stage = run.stages.get(name)
        body += f"<h3>{name.capitalize()}</h3>"
        if stage is None or not stage.log:
            body += html.missing(
                f"The stage {name} has not run.", f"dualtoken train configs/tiny/{name}.yaml --nproc 2"
            )
            continue
        ntp = stage.result.get("ntp") or {}
        if ntp:
            rows = [
                (part, *(_number(ntp[part].get(key), "{:.3f}") for key in ("loss", "unigram", "ratio_to_unigram")))
                for part in ntp
            ]
            body += html.table(("held-out loss, nats per token or code", "model", "unigram", "ratio"), rows, strong=1)
        body += stage_charts(stage.log, ntp)
    lead = (
        "Next-token prediction over text and both codebooks, beside the unigram, the best guess that sees no context."
    )
    return Section("model", "Unified model", lead, body)


def tower(run: RunData) -> Section:
    stage = run.stages.get("tower")
    if stage is None:
        body = html.missing("No tower was trained in this run.", "dualtoken train-tower configs/tiny/tower.yaml")
    else:
        body = _figures(stage) + stage_charts(stage.log)
    return Section(
        "tower", "Vision tower", "The SigLIP that the tokenizer grows from, and that judges drawn images.", body
    )


def single_stage(run: RunData) -> Section:
    """The only section of a run folder of one stage."""
    (name, stage), body = next(iter(run.stages.items())), ""
    body += _figures(stage) + stage_charts(stage.log, stage.result.get("ntp"))
    body += "".join(html.picture(path, path.stem) for path in stage.pictures[-4:])
    return Section("run", "Run", f"What the log, the samples and the result of {name} hold.", body)


def times(run: RunData, metrics: dict[str, Any]) -> Section:
    seconds = {name: value for name, value in metrics.get("seconds", {}).items() if name != "total"}
    if not seconds:
        return Section(
            "times", "Time", "", html.missing("No stage has finished.", "dualtoken run configs/tiny/demo.yaml")
        )
    memory = {stage["name"]: stage["peak_memory_gb"] for stage in run.times.get("stages", [])}
    longest = max(seconds.values()) or 1.0
    rows = [
        (name, html.bar(value / longest), duration(value), _number(memory.get(name), "{:.1f} GB"))
        for name, value in seconds.items()
    ]
    total, peak = metrics["seconds"]["total"], metrics.get("peak_memory_gb")
    rows.append(("total", html.Html("<i></i>"), duration(total), _number(peak, "{:.1f} GB")))
    machine = run.times.get("machine", {})
    lead = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}." if machine else ""
    return Section("times", "Time and memory", lead, html.table(("stage", "", "time", "peak memory"), rows))


def configs(run: RunData) -> Section:
    body = "".join(
        html.details(f"{name}/config.yaml", stage.config) for name, stage in run.stages.items() if stage.config
    )
    body += "".join(html.details(name, text) for name, text in run.other_configs.items())
    body += html.details("metrics.json beside this page holds every figure", "jq . " + str(run.folder / "metrics.json"))
    return Section(
        "configs",
        "Configuration",
        "As resolved from defaults, file and command line; each can be given to its command again.",
        body,
    )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _generation_table(result: dict[str, Any]) -> str:
    columns = {
        "retrieval_at_1": "caption retrieved, R@1",
        "retrieval_over_chance": "× chance",
        "style_accuracy": "style as asked",
    }
    drawn = {name: GUIDANCE.get(name, name) for name in result if name.startswith("cfg")}
    rows = [
        (
            label,
            *(
                _number(result[name].get(key), "{:.1f}" if key == "retrieval_over_chance" else "{:.3f}")
                for key in columns
            ),
        )
        for name, label in ({"chance": "Chance"} | drawn | CEILINGS).items()
        if name in result
    ]
    return html.table(("judged by the tower", *columns.values()), rows) if rows else ""


def _tokenizer_tables(result: dict[str, Any]) -> str:
    picture, used, zero_shot = (result.get(name, {}) for name in ("reconstruction", "codebook_usage", "zero_shot"))
    perplexity, retrieval = result.get("codebook_perplexity", {}), result.get("retrieval", {})
    rows = [("PSNR", _number(picture.get("psnr"), "{:.2f} dB")), ("SSIM", _number(picture.get("ssim"), "{:.3f}"))]
    for name in used:
        rows.append((f"{name} codebook: entries used", _number(used[name], "{:.1%}")))
        rows.append((f"{name} codebook: perplexity", _number(perplexity.get(name), "{:.0f}")))
    body = html.table(("picture and codes, held-out concepts", ""), rows)
    quantized, ceiling = retrieval.get("quantized", {}), retrieval.get("tower", {})
    meaning = [
        ("zero-shot accuracy", *(_number(zero_shot.get(key), "{:.3f}") for key in ("quantized", "tower", "chance")))
    ]
    for key in quantized:
        name = f"retrieval R@1, {key.replace('_', ' ')}"
        values = (quantized[key], ceiling.get(key), retrieval.get("chance"))
        meaning.append((name, *(_number(value, "{:.3f}") for value in values)))
    return body + html.table(("meaning", "from the codes", "untouched tower", "chance"), meaning, strong=1)


def _figures(stage: StageData) -> str:
    """Every number of a result.json, under its dotted name."""
    figures = {name: value for name, value in flatten(stage.result).items() if name != "seconds"}
    rows = [(name, f"{value:,}" if isinstance(value, int) else f"{value:.4g}") for name, value in figures.items()]
    return html.table(("figure", "value"), rows) if rows else ""


def _answers(evaluation: Evaluation) -> str:
    cards = [
        html.answer(evaluation.folder / e["image"], e["question"], e["prediction"], e["reference"], e["right"])
        for e in sorted(evaluation.examples, key=lambda e: not e["right"])
    ]
    return f'<div class="answers">{"".join(cards)}</div>'


def _score_row(name: str, task: dict[str, Any]) -> tuple[str, ...]:
    title, measure, shape = BENCHMARKS.get(name, (name, task["headline"], "{:.3f}"))
    figures = headline_figures(task)
    return (title, measure, f"{task['num_questions']:,}", *(_number(figures.get(row), shape) for row in ROWS))


def _yes_no_row(scores: dict[str, Any]) -> tuple[str, ...]:
    model, constant = (_number(scores[name], "{:.3f}") for name in ("yes_no_accuracy", "yes_no_chance"))
    return ("All yes/no", "accuracy", f"{scores['num_yes_no_questions']:,}", model, "0.500", constant, "–", "1.000")


def _no_scores(split: str, what: str) -> str:
    return html.missing(
        f"{what} for this split yet.", f"dualtoken evaluate --split {split} --benchmarks DIR --out RUN/eval/{split}"
    )


def _splits(run: RunData) -> list[str]:
    """Ours are missed where they are absent, unless the run was evaluated on the official files."""
    if OFFICIAL in run.evaluations:
        return list(run.evaluations)
    return [*HELD_OUT, *(split for split in run.evaluations if split not in HELD_OUT)]


def _split_title(split: str) -> str:
    titles = {"unseen_style": "Seen concepts in an unseen style", "unseen_concept": "Unseen concepts"}
    return {**titles, OFFICIAL: "Official files"}.get(split, split)


def _number(value: Any, shape: str) -> str:
    return shape.format(value) if isinstance(value, int | float) else "–"
