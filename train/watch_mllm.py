"""Looking at a unified model while it trains: held-out losses, what counting alone would reach, images from prompts."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from data.batch import Batch
from data.images import to_pil
from data.loader import DataConfig
from data.picture_files import PictureEncoder
from data.sources import SourceConfig
from data.validation import validation_batches
from eval.sheets import contact_sheet
from heads.sampling import SamplingConfig
from mllm.generate import stream_images
from mllm.pretrained import Unified
from tokenizer import DualCodes
from train.engine import Engine
from train.meter import LossMeter
from train.run import Run
from train.unigram import TargetCounts, count_targets, unigram_losses


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out documents, to be built like those of training."""

    sources: list[SourceConfig] = field(default_factory=list)
    num_documents: int = 500  # of each source, evenly spaced
    num_training_documents: int = 2000  # of each source of training, counted for the unigram to compare with
    every: int = 0  # steps; 0: at the end only


@dataclass(frozen=True)
class SamplesConfig:
    """Images drawn on the way, from fixed prompts with fixed seeds."""

    prompts: list[str] = field(default_factory=list)
    every: int = 0  # steps; 0: never
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


class Watch:
    """What is looked at. Every method is to be called on all ranks. A mistake in it is a ValueError at once."""

    def __init__(
        self,
        engine: Engine,
        unified: Unified,
        run: Run,
        data: DataConfig,
        validation: ValidationConfig,
        samples: SamplesConfig,
        encoder: PictureEncoder | None = None,
    ):
        if samples.every and unified.model.config.heads is None:
            raise ValueError("samples.every asks for drawings, but the model has no heads: set samples.every=0")
        self.encoder = encoder
        self.engine, self.unified, self.run = engine, unified, run
        self.data, self.validation, self.samples = data, validation, samples
        if validation.sources:
            self._documents(validation.sources, 1)
        if samples.every:
            with engine.gathered():
                self._drawing()

    @torch.no_grad()
    def held_out_losses(self) -> dict[str, float]:
        """Means per text token and per code over the held-out documents; nothing without any."""
        if not self.validation.sources:
            return {}
        meter = LossMeter(self.engine.world, self.unified.model.config.loss_weights)
        self.engine.train(False)
        for batch in self._watched("held-out loss", self.validation.sources, self.validation.num_documents):
            meter.add(self.engine(batch.to(self.engine.world.device)))
        self.engine.train()
        return meter.means()

    def next_token_losses(self) -> dict[str, dict[str, Any]]:
        """Per modality: held-out loss, that of the unigram of the training targets, and their ratio."""
        losses = self.held_out_losses()
        if not losses:
            return {}
        training = self._counts(self.data.sources, self.validation.num_training_documents)
        held_out = self._counts(self.validation.sources, self.validation.num_documents)
        result = {}
        for name, unigram in unigram_losses(training, held_out).items():
            if unigram:
                loss, mean = losses[f"{name}.loss"], sum(unigram) / len(unigram)
                result[name] = {"loss": loss, "unigram": mean, "ratio_to_unigram": loss / mean}
        return result

    def draw_samples(self, step: int) -> None:
        """One sheet of the configured prompts into samples/."""
        prompts = self.samples.prompts
        with self.engine.gathered():  # all ranks draw the same: under ZeRO-3 layers are gathered by all
            (codes,) = self._drawing()
        if self.run.is_main:
            tokenizer = self.unified.tokenizer.to(codes.pixel.device)
            images = [to_pil(image) for image in tokenizer.decode(codes.pixel)]
            sheet = contact_sheet(images, columns=min(len(images), 8), captions=prompts)
            self.run.save_image(f"step-{step:06d}", sheet, step)

    def _drawing(self) -> Iterator[DualCodes]:
        prompts, config, (model, vocabulary, _) = self.samples.prompts, self.samples, self.unified
        seeds = list(range(config.seed, config.seed + len(prompts)))
        return stream_images(model, vocabulary, prompts, config.sampling, seeds, num_rows=model.visual.grid[0])

    def _counts(self, sources: list[SourceConfig], num_documents: int) -> TargetCounts:
        visual = self.unified.model.visual
        sizes = (self.unified.model.vocab_size, visual.depth, visual.codebook_size)
        return count_targets(self._watched("unigram", sources, num_documents), *sizes, self.engine.world)

    def _watched(self, desc: str, sources: list[SourceConfig], num_documents: int) -> Iterator[Batch]:
        """The documents, with a bar; it ends early where a source has fewer than it is asked for."""
        with self.run.progress(num_documents * len(sources), desc) as bar:
            for batch in self._documents(sources, num_documents):
                yield batch
                bar.update(len(batch.keys) * self.engine.world.size)

    def _documents(self, sources: list[SourceConfig], num_documents: int) -> Iterator[Batch]:
        world, tokenizer_id = self.engine.world, self.unified.model.visual.tokenizer_id  # known; not hashed each time
        data = replace(self.data, sources=sources)
        place = (world.rank, world.size, num_documents, self.encoder)
        return validation_batches(data, self.unified.vocabulary, tokenizer_id, *place)
