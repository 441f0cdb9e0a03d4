"""`dualtoken info`: what a config resolves to and how large its model is, or what an exported folder holds.

Models are built on the meta device, which needs neither their weights nor memory for them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mllm.weights import WeightFiles
from train.config import load_config

STAGE_CONFIGS = {
    "train-tower": ("train.train_tower", "TrainTowerConfig"),
    "train-tokenizer": ("train.train_tokenizer", "TrainTokenizerConfig"),
    "eval-tokenizer": ("train.evaluate_tokenizer", "EvaluateTokenizerConfig"),
    "pretokenize": ("train.pretokenize", "PretokenizeConfig"),
    "train": ("train.train_mllm", "TrainMllmConfig"),
    "eval-generation": ("train.evaluate_generation", "EvaluateGenerationConfig"),
    "ablate-tokenizer": ("train.ablate_tokenizer", "AblateTokenizerConfig"),
    "draw-benchmark": ("train.draw_benchmark", "DrawBenchmarkConfig"),
    "evaluate": ("train.evaluate", "EvaluateConfig"),
    "run": ("train.pipeline", "PipelineConfig"),
}


def describe(path: str, overrides: list[str], num_gpus: int = 8) -> str:
    """The text that `dualtoken info PATH` prints. Raises FileNotFoundError or ValueError."""
    if Path(path).is_dir():
        return describe_export(Path(path))
    command, config = resolve(path, overrides)
    text = f"# dualtoken {command} {path}\n{OmegaConf.to_yaml(OmegaConf.structured(config))}"
    if command == "train":
        from train.plan import plan

        return text + plan(config, num_gpus)
    build = BUILDERS.get(command)
    if build is None:
        return text
    try:
        model = build(config)
    except FileNotFoundError as error:  # what the model grows from is made by an earlier stage, or is on the hub
        return f"{text}# parameters: not known yet, {error}\n"
    sizes = Counter({name: count(child) for name, child in model.named_children()})
    sizes["(besides)"] = count(model) - sizes.total()
    return text + table(sizes)


def resolve(path: str, overrides: list[str]) -> tuple[str, Any]:
    """The command whose config has most of the keys of a YAML file, and that config."""
    classes = {command: getattr(import_module(module), name) for command, (module, name) in STAGE_CONFIGS.items()}
    keys = _top_level_keys(path)
    fields = {command: {field.name for field in dataclasses.fields(cls)} for command, cls in classes.items()}
    command = max(classes, key=lambda name: len(keys & fields[name]) - len(keys - fields[name]))
    return command, load_config(classes[command], path, overrides)


def _top_level_keys(path: str) -> set[str]:
    try:
        document = OmegaConf.load(path)
    except Exception:  # missing or broken: `load_config` says so
        return set()
    return set(map(str, document)) if isinstance(document, DictConfig) else set()


def describe_export(folder: Path) -> str:
    """Config and weights of an exported model; only the header of the weights is read."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no exported model: config.json is missing; runs/NAME/export is one")
    try:
        config = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder} is damaged ({error}): export the model again") from error
    weights = WeightFiles(folder)
    sizes: Counter[str] = Counter()
    for name in weights:
        sizes[name.split(".")[0]] += weights.shape(name).numel()
    return f"{json.dumps(config, indent=2)}\n{table(sizes)}"


def table(sizes: Counter[str]) -> str:
    lines = [*sizes.items(), ("total", sizes.total())]
    return "# parameters\n" + "".join(f"#   {name:<24}{size:>16,}\n" for name, size in lines if size)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _tower(config: Any) -> nn.Module:
    from train.train_tower import build_siglip

    with torch.device("meta"):
        return build_siglip(config, config.vocabulary_size)


def _tokenizer(config: Any) -> nn.Module:
    from tokenizer import DualTokenizer
    from tokenizer.tower import VisionTower
    from tokenizer.tower_families import vision_config_of

    tower = vision_config_of(config.tokenizer.tower, config.tokenizer.image_size)
    with torch.device("meta"):
        return DualTokenizer(config.tokenizer, VisionTower(tower))


BUILDERS: dict[str, Callable[[Any], nn.Module]] = {
    "train-tower": _tower,
    "train-tokenizer": _tokenizer,
}
