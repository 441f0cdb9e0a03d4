"""What a model card tells of a run: the chain of stages with their data, and the figures that were measured since."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from data.codes import CodeStore
from eval.manifest import hash_model
from train.score_rows import headline_figures, score_files

LOOKED_AT = 500  # pictures of a code store whose metadata is searched for their licences


class Figure(NamedTuple):
    what: str
    value: str
    beside: str  # what to compare it with


@dataclass(frozen=True)
class TrainedStage:
    """A stage of the chain; `config` is its config.yaml as plain values."""

    folder: Path
    config: dict[str, Any]
    steps: int

    def describe(self) -> str:
        config = self.config
        rows = config["data"]["rows_per_batch"] * config["engine"]["accumulation"]
        return "\n".join(
            [
                f"**{self.folder.name}**: {self.steps:,} steps of {rows} rows of {config['data']['context_length']:,} "
                f"positions a process, {config['engine']['precision']}; {', '.join(config['trainable'])} trained at "
                f"{config['optimizer']['learning_rate']:g}. Data, by weight:",
                "",
                *(f"- {_describe_source(source)}" for source in config["data"]["sources"]),
            ]
        )


def read_history(run: Path | None, step: int | None) -> list[TrainedStage]:
    """The stages of `run` and of those that it continues, the first stage first, as far as their folders are here.

    `step` is that of a checkpoint; a finished stage has its own in result.json.
    """
    stages: list[TrainedStage] = []
    while run is not None and (run / "config.yaml").is_file():
        config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        result = run / "result.json"
        done = json.loads(result.read_text())["step"] if step is None and result.is_file() else step
        stages.insert(0, TrainedStage(run.resolve(), config, done or 0))
        run, step = (Path(config["init"]).parent if config["init"] else None), None
    return stages


def _describe_source(source: dict[str, Any]) -> str:
    """Kind, weight, files; of a code store that is here, what it was made from and the licences its pictures name."""
    text = f"{source['weight']:g} × {source['kind']}"
    names = [source[key] for key in ("path", "images") if source.get(key)]
    if not source.get("codes"):
        return ": ".join([text, ", ".join(f"`{_plain(name)}`" for name in names)])
    text += ": " + " on ".join(f"`{_plain(name)}`" for name in [*names, source["codes"]])
    try:
        store = CodeStore.open(source["codes"])
    except (FileNotFoundError, ValueError):
        return text
    stride = max(len(store) // LOOKED_AT, 1)
    licences = sorted({str(store.metadata(i).get("license")) for i in range(0, len(store), stride)} - {"None"})
    named = f"; licences named there: {', '.join(licences)}" if licences else ""
    return f"{text}, {len(store):,} pictures of `{store.provenance['source']}`{named}"


def _plain(path: str) -> str:
    """`runs/demo/instruct/../codes` → `runs/demo/codes`."""
    parts: list[str] = []
    for part in Path(path).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def read_figures(run: Path | None, export: Path | None, tokenizer_id: str, folders: Sequence[Path]) -> list[Figure]:
    """What is known of the model in `export`: its run's own losses; what its pipeline measured; `dualtoken evaluate`.

    `folders` are OUT of `dualtoken evaluate`, or pipelines. A pipeline's figures of other models are passed over; an
    evaluation of another model that was named on purpose is a ValueError.
    """
    own = _read(run / "result.json") if run is not None else {}
    figures = [
        Figure(f"loss on held-out documents, {part}", f"{losses['loss']:.3f} nats", f"unigram {losses['unigram']:.3f}")
        for part, losses in (own.get("ntp") or {}).items()
    ]
    identity = hash_model(export) if export is not None else ""
    for folder in folders:
        if (folder / "scores.json").is_file() and _read(folder / "manifest.json").get("model") != identity:
            raise ValueError(f"{folder} holds scores of another model: evaluate the one that is exported")
    for folder in folders or ([run.parent] if run is not None else []):
        figures += _of_tokenizer(folder / "tokenizer-eval", tokenizer_id)
        figures += _of_drawings(folder / "generation", export)
        for scores in score_files(folder):
            if _read(scores.with_name("manifest.json")).get("model") == identity:
                figures += _of_benchmarks(_read(scores))
    return figures


def _of_tokenizer(stage: Path, tokenizer_id: str) -> Iterator[Figure]:
    result = _read(stage / "result.json")
    if result.get("protocol", {}).get("tokenizer_id") != tokenizer_id:
        return
    quality, usage = result["reconstruction"], result["codebook_usage"]
    pictures = f"{quality['images']} held-out pictures"
    yield Figure("reconstruction", f"PSNR {quality['psnr']:.2f} dB, SSIM {quality['ssim']:.3f}", pictures)
    yield Figure("codebook entries in use", f"pixel {usage['pixel']:.1%}, semantic {usage['semantic']:.1%}", pictures)


def _of_drawings(stage: Path, export: Path | None) -> Iterator[Figure]:
    model = _config(stage).get("model")
    result = _read(stage / "result.json")
    if not result or export is None or model is None or Path(model).resolve() != export.resolve():
        return
    names = {"style_accuracy": "drawings: style recognised", "retrieval_at_1": "drawings: caption found by the tower"}
    for name, what in names.items():
        found = ", ".join(f"guidance {row[3:]} {result[row][name]:.0%}" for row in result if row.startswith("cfg"))
        yield Figure(what, found, f"chance {result['chance'][name]:.0%}, real pictures {result['original'][name]:.0%}")


def _of_benchmarks(scores: dict[str, Any]) -> Iterator[Figure]:
    for name, task in scores["tasks"].items():
        rows = headline_figures(task)
        if "model" in rows:
            what = f"{name} {task['headline']}, {scores['splits'][name]}{', partial' if task['partial'] else ''}"
            beside = ", ".join(f"{row} {value:.4g}" for row, value in rows.items() if row != "model")
            yield Figure(what, f"{rows['model']:.4g}", beside)


def _config(stage: Path) -> dict[str, Any]:
    path = stage / "config.yaml"
    return dict(OmegaConf.to_container(OmegaConf.load(path))) if path.is_file() else {}  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
