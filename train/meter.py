"""Means of what the unified model reports, over micro-batches and ranks: per modality, per codebook, per depth."""

import torch
from torch import Tensor

from data.loader import Step
from mllm.config import LossWeights
from mllm.loss import LossSums, loss
from train.distributed import World


class LossMeter:
    """Adds up `LossSums` and turns them into means: losses per text token and per code, in nats."""

    def __init__(self, world: World, weights: LossWeights):
        self.world, self.weights = world, weights
        self._total: Tensor | None = None
        self._shapes: list[torch.Size] = []

    def add(self, sums: LossSums) -> None:
        self._shapes = [part.shape for part in sums]
        flat = torch.cat([part.detach().double().flatten() for part in sums])
        self._total = flat if self._total is None else self._total + flat

    def means(self) -> dict[str, float]:
        """Flat metrics over everything added on all ranks since the last call; a collective of all ranks."""
        if self._total is None:
            return {}
        parts = self.world.sum(self._total).cpu().split([shape.numel() for shape in self._shapes])
        sums = LossSums(*(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)))
        self._total = None
        num_text, num_visual = sums.text_count.clamp(min=1), sums.visual_count.clamp(min=1)
        metrics = {"loss": loss(sums, self.weights, (sums.text_count + sums.visual_count).clamp(min=1)).item()}
        if sums.text_count:
            metrics["text.loss"] = (sums.text_loss / num_text).item()
            metrics["text.accuracy"] = (sums.text_correct / num_text).item()
        for branch in ("pixel", "semantic") if sums.visual_count else ():
            losses = getattr(sums, f"{branch}_loss") / num_visual
            correct = getattr(sums, f"{branch}_correct") / num_visual
            metrics[f"{branch}.loss"], metrics[f"{branch}.accuracy"] = losses.mean().item(), correct.mean().item()
            if self.weights.z_loss:
                metrics[f"{branch}.z"] = (getattr(sums, f"{branch}_z") / num_visual).mean().item()
            for depth in range(len(losses)):
                metrics[f"{branch}.depth{depth + 1}.loss"] = losses[depth].item()
                metrics[f"{branch}.depth{depth + 1}.accuracy"] = correct[depth].item()
        return metrics


class RateMeter:
    """Positions, targets and images per second of training, over all ranks; validation and saving do not count."""

    def __init__(self, world: World):
        self.world = world
        self._positions = self._images = self._seconds = 0.0

    def add(self, data: Step, seconds: float) -> None:
        self._positions += sum(batch.input_ids.numel() for batch in data.micro_batches)
        self._images += sum(len(batch.pixel) for batch in data.micro_batches)
        self._seconds += seconds

    def means(self) -> dict[str, float]:
        """Rates since the last call; a collective of all ranks."""
        positions, images, seconds = self.world.sum(
            torch.tensor([self._positions, self._images, self._seconds], device=self.world.device)
        ).tolist()
        self._positions = self._images = self._seconds = 0.0
        seconds = max(seconds / self.world.size, 1e-9)
        return {"tokens_per_second": positions / seconds, "images_per_second": images / seconds}
