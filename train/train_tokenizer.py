"""Tokenizer stage: codebooks, both projections, the decoder and the tower, trained jointly (paper §3.2, Eq. 1–4)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from data.image_batches import ImageDataConfig, ImageSet, open_batches
from data.images import ImageTransform
from eval.sheets import reconstruction_sheet
from tokenizer import DualTokenizer, TokenizerConfig, TokenizerOutput
from tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from tokenizer.tower import VisionTower
from train.loop import Loop, LoopConfig
from train.optimizer import OptimizerConfig, build_adamw, optimise
from train.precision import autocast, set_matmul_precision
from train.run import Run, TrackingConfig
from train.schedule import ScheduleConfig


@dataclass(frozen=True)
class TrainTokenizerConfig:
    out: str = "runs/tokenizer"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    validation: str = "assets/emoji/unseen_concept-*.tar.gz"  # some are reconstructed every `sample_every` steps
    sample_every: int = 200
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=[0.5, 0.9], weight_decay=1e-4))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precision: str = "auto"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(config: TrainTokenizerConfig) -> None:
    set_matmul_precision(config.precision)
    torch.manual_seed(config.loop.seed)
    model = DualTokenizer.from_tower(config.tokenizer).train()
    reference = VisionTower.from_pretrained(config.tokenizer.tower, config.tokenizer.attention)
    objective = TokenizerLoss(config.loss, reference, config.tokenizer.semantic_layer)
    run = Run(config.out, config, config.tracking)
    transform = ImageTransform(model.image_size)
    batches = open_batches(config.data, transform)
    samples = ImageSet(config.validation, transform).spread(16).pixel_values
    optimizer = build_adamw(model.parameters(), config.optimizer)
    loop = Loop(
        run, config.loop, config.schedule, {"model": model, "optimizer": optimizer, "data": batches}, "tokenizer"
    )
    for step in loop:
        pixel_values = next(batches).pixel_values
        with autocast(config.precision, pixel_values.device.type):
            output = model(pixel_values)
            loss, parts = objective(output, pixel_values)
        norm = optimise(optimizer, loss, config.optimizer.gradient_clipping)
        loop.record(loss=loss, grad_norm=norm, **parts, **codebook_health(model, output))
        if (step + 1) % config.sample_every == 0:
            run.save_image(f"step-{step + 1:06d}", reconstruction_sheet(model, samples))
    model.freeze().save_pretrained(str(run.export))
    run.finish({"tokenizer_id": model.tokenizer_id, "parameters": sum(p.numel() for p in model.parameters())})


def codebook_health(model: DualTokenizer, output: TokenizerOutput) -> dict[str, Tensor]:
    """Share of entries that the codes of the batch use and their perplexity, for each codebook."""
    health = {}
    for name, quantizer in (("pixel", model.pixel_quantizer), ("semantic", model.semantic_quantizer)):
        codes = getattr(output.codes, name)
        counts = torch.bincount(codes.flatten(), minlength=quantizer.config.codebook_size).float()
        probabilities = counts / counts.sum()
        health[f"{name}_usage"] = (counts > 0).float().mean()
        health[f"{name}_perplexity"] = torch.special.entr(probabilities).sum().exp()
    return health
