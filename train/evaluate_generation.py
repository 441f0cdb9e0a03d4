"""`dualtoken eval-generation`: images drawn from captions, with and without guidance, judged by the tower."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from data.image_batches import ImageSet
from data.images import ImageTransform
from eval.caption_gain import caption_gain
from eval.generation import CaptionJudge, choose_prompts, draw_all
from eval.judge import Judge
from eval.load import load
from eval.sheets import contact_sheet
from heads.sampling import SamplingConfig
from train.precision import set_matmul_precision
from train.run import Run, TrackingConfig


@dataclass(frozen=True)
class EvaluateGenerationConfig:
    out: str = "runs/demo/generation"
    model: str = "runs/demo/instruct/export"
    tower: str = "runs/demo/tower/export"
    images: str = "assets/emoji/train-*.tar.gz"  # their captions are the prompts
    num_prompts: int = 100
    cfg: list[float] = field(default_factory=lambda: [1.0, 3.0])
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    batch_size: int = 50
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("num_prompts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def main(config: EvaluateGenerationConfig) -> None:
    set_matmul_precision(config.precision)
    unified, judge = load(config.model), Judge(config.tower)
    run = Run(config.out, config, TrackingConfig())
    transform = ImageTransform(unified.tokenizer.image_size, unified.tokenizer.config.crop)
    images = ImageSet(config.images, transform)
    prompts = choose_prompts(images, config.num_prompts, config.seed)
    scorer = CaptionJudge(judge, prompts, images)
    codes = unified.tokenizer.encode(prompts.pixel_values)
    result = {
        "prompts": config.num_prompts,
        "chance": {"retrieval_at_1": 1 / config.num_prompts, "style_accuracy": 1 / len(scorer.names)},
        "original": scorer.score(prompts.pixel_values),
        "reconstruction": scorer.score(unified.tokenizer.decode(codes.pixel)),
        "caption_nats_per_image": caption_gain(unified, prompts.captions, codes),
    }
    for cfg in config.cfg:
        name = f"cfg{cfg:g}"
        sampling = replace(config.sampling, cfg=cfg)
        drawn = draw_all(unified, prompts.captions, sampling, config.seed, config.batch_size, name)
        result[name] = scorer.score(torch.stack([transform(image) for image in drawn]))
        run.save_image(name, contact_sheet(drawn, columns=10, captions=prompts.captions, scale=2))
    Path(config.out, "prompts.json").write_text(json.dumps(prompts.captions, indent=1))
    run.finish(result)
    for name, figures in result.items():
        print(f"{name:16s}", figures)
