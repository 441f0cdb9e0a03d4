"""How well the codebooks are used, batch by batch, and a warning when one collapses."""

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenizer import DualTokenizer
from tokenizer.code_use import count_codes, perplexity, usage
from train.distributed import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HealthConfig:
    """A codebook that uses less than `min_usage` of what a batch could use, `patience` steps in a row, is reported."""

    min_usage: float = 0.1
    patience: int = 200  # steps; 0: never

    def __post_init__(self) -> None:
        if not 0 <= self.min_usage <= 1 or self.patience < 0:
            raise ValueError(f"health.min_usage={self.min_usage} must be in [0, 1], patience={self.patience} ≥ 0")


class CodebookHealth:
    """Counts the codes of one step, over micro-batches and ranks, and knows for how long a codebook was hardly used."""

    def __init__(self, config: HealthConfig, model: DualTokenizer, world: World):
        self.config, self.world = config, world
        self.quantizers = {"pixel": model.pixel_quantizer, "semantic": model.semantic_quantizer}
        self.low_steps = dict.fromkeys(self.quantizers, 0)
        self._counts: dict[str, Tensor] = {}

    def add(self, codes: dict[str, Tensor | None]) -> None:
        """Codes int64[B, N, D] of each branch that was run, of one micro-batch of this rank."""
        for name, of_branch in codes.items():
            if of_branch is not None:
                counts = count_codes(self.quantizers[name], of_branch)
                self._counts[name] = self._counts[name] + counts if name in self._counts else counts

    def metrics(self) -> dict[str, Tensor]:
        """Of everything added on all ranks since the last call, for each branch: the share of entries in use and the
        perplexity of the codes, means where it has a codebook per depth, and the dead entries that were restarted. A
        collective of all ranks.
        """
        metrics = {}
        restarts = self._take_restarts()
        for name, counts in self._counts.items():
            counts = self.world.sum(counts)
            used = usage(counts)
            metrics[f"{name}_usage"] = used.mean().float()
            metrics[f"{name}_perplexity"] = perplexity(counts).mean().float()
            metrics[f"{name}_restarts"] = restarts[name]
            self._watch(name, used.min().item(), reachable=min(1.0, counts.sum().item() / counts.numel()))
        self._counts = {}
        return metrics

    def _take_restarts(self) -> dict[str, Tensor]:
        """Counted since the last call; where both branches have the same codebooks, for both."""
        books = {name: [q.codebook(depth) for depth in range(len(q.codebooks))] for name, q in self.quantizers.items()}
        restarts = {name: torch.stack([book.num_restarts for book in own]).sum() for name, own in books.items()}
        for book in itertools.chain(*books.values()):
            book.num_restarts.zero_()
        return restarts

    def _watch(self, name: str, usage: float, reachable: float) -> None:
        self.low_steps[name] = self.low_steps[name] + 1 if usage < self.config.min_usage * reachable else 0
        if self.world.is_main and self.config.patience and self.low_steps[name] == self.config.patience:
            logger.warning(
                "the %s codebook collapses: for %d steps a batch has used under %.3g of its entries, now %.3g; raise "
                "tokenizer.%s.restart_below or data.batch_size, lower optimizer.learning_rate, or take a smaller "
                "codebook_size",
                name, self.config.patience, self.config.min_usage * reachable, usage, name,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return dict(self.low_steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.low_steps = {name: state[name] for name in self.low_steps}
