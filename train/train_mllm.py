"""The unified model's stages (arXiv 2503.14324, section 3.3): align, pretrain and instruct differ by config alone.

torchrun --standalone --nproc_per_node 2 -m train.train_mllm configs/tiny/pretrain.yaml loop.steps=100
"""

import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from omegaconf import MISSING
from torch import Tensor

from data.loader import DataConfig, Loader, Step
from mllm.config import UnifiedConfig
from mllm.lora import ADAPTER, LoraConfig, add_adapters, take_off_adapters
from mllm.loss import LossSums, loss
from train.build_mllm import begin, continue_from, open_vocabulary
from train.card_facts import read_history
from train.checkpoint import latest_checkpoint, reseed_rng
from train.checkpoint_writer import CheckpointWriter
from train.distributed import World, init_world
from train.engine import Engine
from train.engine_config import EngineConfig
from train.flops import Work, model_flops
from train.launch import run_launched
from train.loop import MAX_BAD_STEPS, LoopConfig, is_due
from train.meter import LossMeter
from train.model_card import CardFacts, write_card
from train.parameters import PartsOptimizerConfig, group_parameters
from train.picture_encoder import TokenizerEncoder
from train.precision import set_matmul_precision
from train.rates import RateMeter, matmul_peak
from train.replaced_folder import replaced
from train.resume import refuse_changed_config
from train.run import Run, TrackingConfig
from train.schedule import ScheduleConfig, lr_multiplier
from train.spikes import SpikeConfig, Spikes
from train.watch_mllm import SamplesConfig, ValidationConfig, Watch
from train.weight_ema import WeightEmaConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainMllmConfig:
    out: str = "runs/pretrain"
    init: str | None = None  # export/ of an earlier stage, which brings model, vocabulary and tokenizer; null: from new
    tokenizer: str | None = None  # export/ of the tokenizer stage
    vocabulary: str | None = None  # folder or hub id; null: trained on the texts of data.sources
    vocabulary_size: int = 4096  # of a trained one
    model: UnifiedConfig = field(default_factory=UnifiedConfig)
    data: DataConfig = MISSING
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    trainable: list[str] = field(default_factory=lambda: ["llm", "projector", "heads"])  # train/parameters.py
    lora: LoraConfig = field(default_factory=LoraConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: PartsOptimizerConfig = field(default_factory=PartsOptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: WeightEmaConfig = field(default_factory=WeightEmaConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    peak_tflops: float = 0.0  # of one process at the run's precision, for the MFU; 0: measured at start
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.init is None and self.tokenizer is None:
            raise ValueError("neither init nor tokenizer is set: name the export/ folder of a tokenizer to start from")
        if self.init is not None and (self.tokenizer is not None or self.vocabulary is not None):
            raise ValueError(f"init={self.init} brings its own tokenizer and vocabulary: remove these two keys")
        best = self.loop.keep.best
        if best is not None and best.startswith("validation.") and not self.validation.every:
            raise ValueError(f"loop.keep.best={best} is never measured on the way: set validation.every")
        if self.has_adapters and "llm" in self.trainable:
            raise ValueError("trainable names both llm and lora, which leaves the LLM's own weights alone: choose one")
        if not self.has_adapters and self.lora != LoraConfig():
            raise ValueError("lora.* is set, but trainable does not name lora: no adapter would be made")

    @property
    def has_adapters(self) -> bool:
        return "lora" in self.trainable


def main(config: TrainMllmConfig) -> None:
    set_matmul_precision(config.engine.matmul_precision)
    world = init_world()
    world.on_main(refuse_changed_config, config.out, config)
    run = Run(config.out, config, config.tracking, world.is_main)
    world.barrier()  # a path such as ${out}/../pretrain leads nowhere until the main process has made `out`
    if run.result is not None and run.result["step"] >= config.loop.steps:
        if world.is_main:
            print(f"{config.out} is finished ({run.result['step']} steps): nothing to do; another `out` is a new run")
        return
    Trainer(config, world, run).train()


class Trainer:
    """Model, engine, data and log of one stage, and its loop."""

    def __init__(self, config: TrainMllmConfig, world: World, run: Run):
        self.config, self.world, self.run = config, world, run
        if config.init is not None:
            self.unified = continue_from(config.init, config.model, config.engine, world)
        else:
            fresh = latest_checkpoint(run.checkpoints) is None
            sources, folder = config.data.sources, run.folder / "vocabulary"
            vocabulary = open_vocabulary(config.vocabulary, config.vocabulary_size, sources, folder, fresh, world)
            seed, engine = config.loop.seed, config.engine
            self.unified = begin(config.model, config.tokenizer or "", vocabulary, seed, engine, world)
        model, vocabulary, tokenizer = self.unified
        self.weights = model.config.loss_weights
        if config.has_adapters:
            add_adapters(model.llm, config.lora, config.loop.seed)
        groups = group_parameters(model, config.trainable, config.optimizer)
        rows, ema = config.data.rows_per_batch, config.ema
        self.engine = Engine(config.engine, world, model, groups, config.optimizer, rows, ema)
        self.writer = CheckpointWriter(run.checkpoints, config.loop.keep, config.loop.save_in_background, world)
        place = (world.rank, world.size, config.engine.accumulation)
        encoder = TokenizerEncoder(tokenizer, world.device) if self._reads_pictures() else None
        pin_memory = world.device.type == "cuda"
        self.loader = Loader(config.data, vocabulary, model.visual.tokenizer_id, *place, encoder, pin_memory)
        self.watch = Watch(self.engine, self.unified, run, config.data, config.validation, config.samples, encoder)
        self.meter = LossMeter(world, self.weights)
        self.spikes = Spikes(config.spikes)
        world.barrier()  # all at once, as in training
        peak = config.peak_tflops * 1e12 or matmul_peak(config.engine.compute_dtype, world.device)
        self.rates = RateMeter(world, lambda batch: model_flops(model, Work.of(batch)), peak)
        self.num_skipped = self.num_bad_in_a_row = 0
        self.stopping = False

    def train(self) -> None:
        """Resume, loop, finish."""
        config, steps = self.config.loop, self.config.loop.steps
        start = done = self.resume()
        with self.heeding_sigterm(), self.run.progress(steps, self.run.folder.name, initial=start) as bar:
            for step, data in zip(range(start, steps), self.rates.waiting(self.loader), strict=False):
                done = step + 1
                norm = self.step(done, data, lr_multiplier(self.config.schedule, step, steps))
                self.engine.update_average(step)
                if is_due(done, config.log_every) or done == steps:
                    bar.set_postfix(loss=self.log(done, norm), refresh=False)
                self.look(done)
                bar.update()
                stopping = self.stop_requested()
                self.writer.poll()
                if is_due(done, config.checkpoint_every) or done == steps or stopping:
                    self.save(done)
                if stopping:
                    self.writer.finish()
                    raise SystemExit(128 + signal.SIGTERM)  # the same command continues
        if done < steps:  # every source has been seen as often as its `epochs` say
            self.end_early(done)
        self.finish(done)

    def look(self, step: int) -> None:
        """Held-out losses and pictures, where they are due."""
        if is_due(step, self.config.validation.every):
            with self.engine.averaged():
                losses = self.watch.held_out_losses()
            self.run.log(step, **{f"validation.{name}": value for name, value in losses.items()})
        if is_due(step, self.config.samples.every):
            with self.engine.averaged():
                self.watch.draw_samples(step)

    def _reads_pictures(self) -> bool:
        return any(source.images for source in [*self.config.data.sources, *self.config.validation.sources])

    def step(self, step: int, data: Step, multiplier: float) -> float:
        """One update from one global batch; returns the norm of its gradient (Eq. 6: every target weighs the same)."""
        started = time.perf_counter()
        all_sums: list[LossSums] = []
        total = torch.zeros((), device=self.world.device)
        for batch in data.micro_batches:
            sums = self.engine(batch.to(self.world.device))
            share = loss(sums, self.weights, data.num_targets)
            self.engine.backward(share)
            total += share.detach()
            all_sums.append(LossSums(*(part.detach() for part in sums)))
        norm = self.engine.step(multiplier)
        if math.isfinite(norm):
            self.num_bad_in_a_row = 0
            for sums in all_sums:
                self.meter.add(sums)
            self.note_spikes(step, data, self.spikes.look_at(loss=self.world.sum(total).item(), grad_norm=norm))
        else:
            self.count_bad_step(data)
        self.rates.add(data, time.perf_counter() - started)
        return norm

    def note_spikes(self, step: int, data: Step, found: dict[str, float]) -> None:
        """The same on all ranks: the keys of the whole global batch are gathered."""
        if not found:
            return
        keys = self.keys_of(data)
        self.run.log(step, **{f"spike.{name}": value for name, value in found.items()}, spike=", ".join(keys))
        if self.world.is_main:
            values = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            logger.warning("step %d: %s; its documents (all in the log): %s", step, values, ", ".join(keys[:5]))

    def keys_of(self, data: Step) -> list[str]:
        """Of the documents of all ranks; a collective."""
        own = [key for batch in data.micro_batches for key in batch.keys]
        return [key for keys in self.world.gather(own) for key in keys]

    def count_bad_step(self, data: Step) -> None:
        """The engine left the weights as they were, on every rank alike. Too many such steps in a row end the run."""
        self.num_skipped += 1
        self.num_bad_in_a_row += 1
        if self.num_bad_in_a_row > MAX_BAD_STEPS:
            keys = self.keys_of(data)
            raise ValueError(
                f"{self.config.out}: the gradient was not finite for {self.num_bad_in_a_row} steps in a row; lower "
                f"optimizer.learning_rate, or look at the documents of the last batch: {', '.join(keys[:20])}"
            )

    def log(self, step: int, norm: float) -> str:
        """Writes one line: means since the last one, over all ranks; returns the loss as text."""
        means = self.meter.means()
        rates = {f"lr.{part}": rate for part, rate in self.engine.learning_rates.items()}
        rates |= self.rates.means() | {f"data.{name}": value for name, value in self.loader.metrics().items()}
        norms = {"grad_norm": norm, **{f"grad_norm.{part}": own for part, own in self.engine.part_norms().items()}}
        self.run.log(step, **means, **norms, skipped=self.num_skipped, spikes=self.spikes.num, **rates)
        return f"{means.get('loss', math.nan):.4f}"

    @contextmanager
    def heeding_sigterm(self) -> Iterator[None]:
        previous = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def stop_requested(self) -> bool:
        """Whether any rank got SIGTERM: all leave together."""
        return bool(self.world.sum(torch.tensor(self.stopping, dtype=torch.int32, device=self.world.device)))

    def resume(self) -> int:
        checkpoint = latest_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.rewind(0)
            reseed_rng(self.config.loop.seed, self.world.rank)  # dropout: its own on each rank, of this seed
            return 0
        state = self.engine.load(checkpoint)
        self.loader.load_state_dict(state["loader"])
        self.num_skipped = state["num_skipped"]
        self.spikes.load_state_dict(state["spikes"])
        self.meter.load_state_dict(state.get("meter", {}))  # older checkpoints have none
        self.run.rewind(state["step"])
        return state["step"]

    def save(self, step: int) -> None:
        state = {"step": step, "loader": self.loader.state_dict(), "num_skipped": self.num_skipped}
        state |= {"spikes": self.spikes.state_dict(), "meter": self.meter.state_dict()}
        self.writer.save(step, self.engine.files(state))

    def end_early(self, step: int) -> None:
        self.writer.finish()
        if latest_checkpoint(self.run.checkpoints) != self.run.checkpoints / f"step-{step:06d}":
            self.save(step)
        if self.world.is_main:
            print(f"{self.config.out}: all sources have run out after {step} of {self.config.loop.steps} steps")

    def finish(self, step: int) -> None:
        """Scores the held-out documents, exports the model, and only then marks the run as complete."""
        self.writer.finish()
        with self.engine.averaged():
            ntp = self.watch.next_token_losses()
            self.world.on_main(self.export, self.engine.state_dict(), step)
        counts = {"step": step, "skipped": self.num_skipped, "spikes": self.spikes.num}
        self.run.finish({**counts, "parameters": self.engine.num_parameters, "ntp": ntp})

    def export(self, weights: Mapping[str, Tensor], step: int) -> None:
        model, vocabulary, tokenizer = self.unified
        with replaced(self.run.export) as partial:
            if self.config.has_adapters:
                weights = take_off_adapters(weights, self.config.lora, partial / ADAPTER)
            model.save_pretrained(partial, vocabulary, tokenizer, weights)
            history = read_history(self.run.folder, step)
            write_card(self.unified, partial, CardFacts(self.run.folder.name, history))


if __name__ == "__main__":
    run_launched(TrainMllmConfig, main)
