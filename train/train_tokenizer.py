"""Tokenizer stages: codebooks, projections, decoder and tower (paper §3.2, Eq. 1–4); they differ by config alone.

torchrun --nproc_per_node 8 -m train.train_tokenizer configs/full/tokenizer_paper.yaml
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from data.image_batches import ImageBatches, ImageDataConfig, open_batches
from data.images import ImageTransform
from data.shards import spread_samples
from eval.sheets import reconstruction_sheet
from tokenizer import DualTokenizer, TokenizerConfig
from tokenizer.discriminator import AdversarialConfig
from tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from tokenizer.tower import VisionTower
from train.adversary import Adversary
from train.build_tokenizer import begin, compile_networks
from train.distributed import World, join_world
from train.health import CodebookHealth, HealthConfig
from train.launch import run_launched
from train.loop import Loop, LoopConfig, Stateful, is_due
from train.optimizer import OptimizerConfig, apply_gradients, build_adamw
from train.precision import autocast, set_matmul_precision
from train.replaced_folder import replaced
from train.resume import refuse_changed_config
from train.run import Run, TrackingConfig
from train.schedule import ScheduleConfig
from train.tokenizer_parts import PARTS, check_parts
from train.weight_ema import WeightEma, WeightEmaConfig

LAST_LAYER = "head.2.weight"  # of the decoder: the 3×3 convolution to RGB
NUM_SAMPLES = 16  # of the sheet


@dataclass(frozen=True)
class TrainTokenizerConfig:
    out: str = "runs/tokenizer"
    init: str | None = None  # export/ of an earlier stage of the same `tokenizer`; null: new, on its tower
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    trainable: list[str] = field(default_factory=lambda: list(PARTS))  # train/tokenizer_parts.py
    loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    validation: str = "assets/emoji/unseen_concept-*.tar.gz"  # some are reconstructed every `sample_every` steps
    sample_every: int = 200
    accumulation: int = 1  # micro-batches of data.batch_size per step and process; codebooks learn at each
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=[0.5, 0.9], weight_decay=1e-4))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: WeightEmaConfig = field(default_factory=WeightEmaConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    precision: str = "auto"
    gradient_checkpointing: bool = False  # of the tower
    compile: bool = False  # the networks by torch.compile; minutes at the start
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        check_parts(self.trainable)
        if self.accumulation < 1:
            raise ValueError(f"accumulation={self.accumulation} must be at least 1")
        if self.adversarial.weight > 0 and "decoder" not in self.trainable:
            raise ValueError("adversarial.weight > 0 trains the decoder: add decoder to trainable, or set it to 0")
        if self.adversarial.weight > 0 and "pixel" not in self.loss.branches:
            raise ValueError("adversarial.weight > 0 needs loss.reconstruction or loss.perceptual, or set it to 0")
        if not self.loss.branches:
            raise ValueError("loss.reconstruction, perceptual, semantic and pooled are all 0: nothing would be learnt")


def main(config: TrainTokenizerConfig) -> None:
    set_matmul_precision(config.precision)
    world = join_world()
    world.on_main(refuse_changed_config, config.out, config)
    torch.manual_seed(config.loop.seed)  # the same weights on every rank
    trainer = Trainer(config, world)
    model = trainer.model
    run = Run(config.out, config, config.tracking, world.is_main)
    transform = ImageTransform(model.image_size, model.config.crop)
    batches = open_batches(config.data, transform, world.rank, world.size)
    samples = None
    if config.sample_every and world.is_main:
        shown = spread_samples(config.validation, NUM_SAMPLES)
        samples = torch.stack([transform(sample.image) for sample in shown]).to(world.device)
    loop = Loop(run, config.loop, config.schedule, trainer.parts, batches, "tokenizer", world)
    for step in loop:
        loop.record(**trainer.step(batches, step))
        if samples is not None and is_due(step + 1, config.sample_every):
            with trainer.ema.applied():
                run.save_image(f"step-{step + 1:06d}", reconstruction_sheet(model, samples), step + 1)
    with trainer.ema.applied():
        world.on_main(export, model.freeze(), run.export)
        run.finish({"tokenizer_id": model.tokenizer_id, "parameters": sum(p.numel() for p in model.parameters())})


def export(model: DualTokenizer, folder: Path) -> None:
    with replaced(folder) as partial:
        model.save_pretrained(partial)


class Trainer:
    """Everything that learns in a stage, and one step of it."""

    def __init__(self, config: TrainTokenizerConfig, world: World):
        self.config, self.world = config, world
        self.model = begin(config.tokenizer, config.init, config.trainable, config.gradient_checkpointing, world.device)
        source = (config.tokenizer.tower, config.tokenizer.attention, config.tokenizer.image_size)
        reference = VisionTower.from_pretrained(*source)
        self.objective = TokenizerLoss(config.loss, reference, config.tokenizer.semantic_layer).to(world.device)
        self.optimizer = build_adamw(self.model.parameters(), config.optimizer)
        self.ema = WeightEma.of(self.model, config.ema)
        self.health = CodebookHealth(config.health, self.model, world)
        self.parts: dict[str, Stateful] = {"model": self.model, "optimizer": self.optimizer}
        self.parts |= {"ema": self.ema, "health": self.health}
        self.adversary = None
        if config.adversarial.weight > 0:
            self.adversary = Adversary(config.adversarial, config.optimizer, config.loop.steps, world)
            self.parts["discriminator"] = self.adversary.discriminator
            self.parts["discriminator_optimizer"] = self.adversary.optimizer
        if config.compile:
            compile_networks(self.model, self.objective, self.adversary)

    def step(self, batches: ImageBatches, step: int) -> dict[str, Tensor]:
        """One update from one global batch; returns its metrics, `loss` and the norms the same on every rank."""
        adversary = self.adversary if self.adversary is not None and step >= self.adversary.start else None
        self.optimizer.zero_grad(set_to_none=True)
        if adversary is not None:
            adversary.optimizer.zero_grad(set_to_none=True)
        micro_batches = [
            self.backward(next(batches).pixel_values.to(self.world.device), adversary)
            for _ in range(self.config.accumulation)
        ]
        means = {name: torch.stack([m[name].float() for m in micro_batches]).mean() for name in micro_batches[0]}
        loss = self.world.mean(means.pop("loss"))
        self.world.average_gradients(self.model.parameters())
        norms = {"grad_norm": apply_gradients(self.optimizer, loss, self.config.optimizer.gradient_clipping)}
        if adversary is not None:
            norms["discriminator.grad_norm"] = adversary.step(self.world.mean(means["discriminator.loss"]))
        self.ema.update(step)
        return {"loss": loss, **norms, **means, **self.health.metrics()}

    def backward(self, pixel_values: Tensor, adversary: Adversary | None) -> dict[str, Tensor]:
        """Adds the gradients of one micro-batch float[B, 3, h, w], as its share of the step; returns detached parts."""
        config, device_type = self.config, pixel_values.device.type
        with autocast(config.precision, device_type):
            output = self.model(pixel_values, config.loss.branches)
            loss, parts = self.objective(output, pixel_values)
            score = adversary.score(output.reconstruction) if adversary else None
        if adversary is not None and score is not None:
            reconstruction_loss = self.objective.reconstruction_loss(parts)
            last_layer = self.model.decoder.get_parameter(LAST_LAYER)
            term, weight = adversary.weigh(score, reconstruction_loss, last_layer)
            loss, parts = loss + term, {**parts, "adversarial": score, "adaptive_weight": weight}
        (loss / config.accumulation).backward()
        if adversary is not None:
            with autocast(config.precision, device_type):
                judged, balance = adversary.judge(pixel_values, output.reconstruction)
            (judged / config.accumulation).backward()
            parts = {**parts, **balance}
        self.health.add({"pixel": output.pixel_codes, "semantic": output.semantic_codes})
        return {"loss": loss.detach(), **{name: value.detach() for name, value in parts.items()}}


if __name__ == "__main__":
    run_launched(TrainTokenizerConfig, main)
