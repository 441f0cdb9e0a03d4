"""`dualtoken ablate-tokenizer`: variants of the tokenizer, trained and measured alike, over seeds (paper Tab. 3).

A variant is a list of overrides of one `train-tokenizer` config. Runs are made one after the other, a seed at a time,
so that what a stopped ablation has is balanced; started again, it continues.
"""

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from data.images import ImageTransform
from data.shards import spread_samples
from eval.sheets import reconstruction_sheet
from tokenizer import DualTokenizer
from train import evaluate_tokenizer, train_tokenizer
from train.config import load_config
from train.evaluate_tokenizer import EvaluateTokenizerConfig
from train.resume import refuse_other_result
from train.run import flatten, write_atomically
from train.train_tokenizer import TrainTokenizerConfig

FIGURES = {  # of result.json: what the table calls them, and the branch without which they say nothing
    "reconstruction.psnr": ("PSNR", "pixel"),
    "reconstruction.ssim": ("SSIM", "pixel"),
    "reconstruction.lpips": ("LPIPS", "pixel"),
    "reconstruction.tower_distance": ("tower distance", "pixel"),
    "codebook_usage.pixel": ("usage, pixel", "pixel"),
    "zero_shot.quantized": ("zero-shot", "semantic"),
    "zero_shot.ratio_to_tower": ("of the tower's", "semantic"),
    "retrieval.quantized.text_to_image": ("R@1 text → image", "semantic"),
    "retrieval.quantized.image_to_text": ("R@1 image → text", "semantic"),
    "codebook_usage.semantic": ("usage, semantic", "semantic"),
}


@dataclass(frozen=True)
class AblateTokenizerConfig:
    out: str = "runs/ablation"
    train: str = "configs/tiny/tokenizer.yaml"  # of `train-tokenizer`, which all variants start from
    evaluate: str = "configs/tiny/tokenizer_eval.yaml"  # of `eval-tokenizer`
    tower: str = "runs/demo/tower/export"  # for both
    common: list[str] = field(default_factory=list)  # overrides of `train` that all variants share, the budget say
    variants: dict[str, list[str]] = field(default_factory=dict)  # name → overrides of `train`
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    pictures: int = 8  # of the sheet


def main(config: AblateTokenizerConfig) -> None:
    plan = {(name, seed): plan_run(config, name, seed) for seed in config.seeds for name in config.variants}
    if not plan:
        raise ValueError("variants or seeds is empty: there is nothing to train")
    for training, evaluation in plan.values():
        refuse_other_result(training.out, training)
        refuse_other_result(evaluation.out, evaluation)
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in config.variants}
    for (name, seed), (training, evaluation) in plan.items():
        print(f"{name}, seed {seed}", flush=True)
        for stage, stage_config in ((train_tokenizer, training), (evaluate_tokenizer, evaluation)):
            if not (Path(stage_config.out) / "result.json").exists():
                stage.main(stage_config)  # type: ignore[attr-defined]
        result = flatten(json.loads((Path(evaluation.out) / "result.json").read_text()))
        for key, (_, branch) in FIGURES.items():
            if branch in training.loss.branches and key in result:
                figures[name][key].append(result[key])
    save(config, figures)
    samples = Path(config.out) / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    first = config.seeds[0]
    sheet(config, {name: plan[name, first][0].out for name in config.variants}).save(samples / "variants.png")


def plan_run(
    config: AblateTokenizerConfig, name: str, seed: int
) -> tuple[TrainTokenizerConfig, EvaluateTokenizerConfig]:
    """What is trained and measured for one variant and seed; a mistake in any is known before the first step."""
    out = f"{config.out}/{name}-{seed}"
    own = [f"out={out}", f"tokenizer.tower={config.tower}", f"loop.seed={seed}", f"data.seed={seed}"]
    training = load_config(TrainTokenizerConfig, config.train, [*config.common, *config.variants[name], *own])
    own = [f"out={out}/eval", f"tokenizer={out}/export", f"tower={config.tower}", "tower_distance=true"]
    return training, load_config(EvaluateTokenizerConfig, config.evaluate, own)


def save(config: AblateTokenizerConfig, figures: dict[str, dict[str, list[float]]]) -> None:
    """OUT/result.json with every run's figures, OUT/table.md with their means and sample deviations."""
    document = {"seeds": config.seeds, "common": config.common, "variants": config.variants, "figures": figures}
    write_atomically(Path(config.out) / "result.json", json.dumps(document, indent=2) + "\n")
    shown = {key: title for key, (title, _) in FIGURES.items() if any(key in own for own in figures.values())}
    lines = ["| | " + " | ".join(shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for name, of_variant in figures.items():
        cells = [mean_and_deviation(of_variant.get(key, [])) for key in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    write_atomically(Path(config.out) / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def mean_and_deviation(values: list[float]) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{deviation}"


def sheet(config: AblateTokenizerConfig, folders: dict[str, str]) -> Image.Image:
    """Held-out pictures over each variant's reconstructions of them, of the first seed, from top to bottom."""
    evaluation = load_config(EvaluateTokenizerConfig, config.evaluate)
    samples = spread_samples(evaluation.images, config.pictures)
    sheets: list[Image.Image] = []
    for name, folder in folders.items():
        tokenizer = DualTokenizer.from_pretrained(f"{folder}/export")
        transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)
        pictures = torch.stack([transform(sample.image) for sample in samples])
        sheets.append(reconstruction_sheet(tokenizer, pictures, config.pictures, 2, [name] * len(samples)))
    whole = Image.new("RGB", (sheets[0].width, sum(part.height for part in sheets)), "white")
    top = 0
    for part in sheets:
        whole.paste(part, (0, top))
        top += part.height
    return whole
