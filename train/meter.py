"""Means of what the unified model reports, over micro-batches and ranks: per modality, per codebook, per depth."""

from typing import Any

import torch
from torch import Tensor

from heads.sampling import BRANCHES
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

    def sums(self) -> LossSums | None:
        """Everything added on all ranks since the last `means`, if anything was; a collective of all ranks."""
        if self._total is None:
            return None
        parts = self.world.sum(self._total).cpu().split([shape.numel() for shape in self._shapes])
        return LossSums(*(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """Of all ranks together, for any number of them to go on with; a collective."""
        sums = self.sums()
        return {} if sums is None else sums._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """On every rank: the main one takes the sums over, the others begin at zero."""
        if state:
            sums = LossSums(**state)
            if not self.world.is_main:
                sums = LossSums(*map(torch.zeros_like, sums))
            self.add(LossSums(*(part.to(self.world.device) for part in sums)))

    def means(self) -> dict[str, float]:
        """Flat metrics over everything added on all ranks since the last call; a collective of all ranks."""
        sums, self._total = self.sums(), None
        if sums is None:
            return {}
        num_text, num_visual = sums.text_count.clamp(min=1), sums.visual_count.clamp(min=1)
        metrics = {"loss": loss(sums, self.weights, (sums.text_count + sums.visual_count).clamp(min=1)).item()}
        if sums.text_count:
            metrics["text.loss"] = (sums.text_loss / num_text).item()
            metrics["text.accuracy"] = (sums.text_correct / num_text).item()
        for branch in BRANCHES if sums.visual_count else ():
            losses = getattr(sums, f"{branch}_loss") / num_visual
            correct = getattr(sums, f"{branch}_correct") / num_visual
            metrics[f"{branch}.loss"], metrics[f"{branch}.accuracy"] = losses.mean().item(), correct.mean().item()
            if self.weights.z_loss:
                metrics[f"{branch}.z"] = (getattr(sums, f"{branch}_z") / num_visual).mean().item()
            for depth in range(len(losses)):
                metrics[f"{branch}.depth{depth + 1}.loss"] = losses[depth].item()
                metrics[f"{branch}.depth{depth + 1}.accuracy"] = correct[depth].item()
        return metrics
