"""DeepSpeed behind a small face (Sec. 3.3 is trained under ZeRO-3). The only file that imports deepspeed.

`Engine.backward` adds up: the gradient of a step is the plain sum over ranks and micro-batches of the gradients of the
losses it was given, so that a loss divided by the number of targets of the whole global batch has the gradient of one
large batch (Eq. 6).
"""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train.checkpoint import load_state, reseed_rng, restore_rng, save_rng
from train.distributed import World
from train.engine_config import EngineConfig, deepspeed_config
from train.masters import Masters
from train.parameters import ParameterGroup, PartsOptimizerConfig
from train.part_norms import PartNorms
from train.weight_ema import WeightEmaConfig

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed guesses from what is installed
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)

import deepspeed  # noqa: E402  (reads DS_ACCELERATOR when imported)

logger = logging.getLogger(__name__)


@contextmanager
def partitioned_loading(config: EngineConfig, world: World) -> Iterator[None]:
    """Inside, transformers makes models in ZeRO-3 partitions: `from_pretrained` loads straight into them, and what
    `from_config` makes is filled through `whole`. No rank holds the model in full; the main one maps all safetensors
    files of a pretrained LLM, whose pages the kernel reads when they are copied and may drop again.

    Only for pretrained weights. What is drawn at random stays outside, so that all ranks draw the same numbers. Never a
    bare zero.Init around a constructor: transformers would initialise empty partitions, in silence.
    """
    if config.zero_stage != 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    _init_deepspeed(world)
    keep_alive = HfDeepSpeedConfig(deepspeed_config(config, 1, world.size))
    yield
    del keep_alive


def whole(parameter: nn.Parameter) -> AbstractContextManager:
    """Inside, `parameter` is whole on every rank and may be written, alike on all; every rank must enter."""
    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id"))


def _init_deepspeed(world: World) -> None:
    if world.device.type == "cpu":
        # A shared-memory op that only inference uses, and that would be compiled for a minute at start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if world.device.type == "cuda" else "gloo", verbose=False)


class Engine:
    """A model under DeepSpeed: forward, backward, step, save, load."""

    def __init__(
        self,
        config: EngineConfig,
        world: World,
        model: nn.Module,
        groups: list[ParameterGroup],
        optimizer: PartsOptimizerConfig,
        rows_per_batch: int = 1,
        ema: WeightEmaConfig = WeightEmaConfig(),
    ):
        self.config, self.world, self.groups = config, world, groups
        self._backwards = 0  # micro-batches of the step so far
        self._clipping = optimizer.gradient_clipping
        self._is_plain = config.zero_stage == 0 and config.precision != "bf16"  # no optimizer of DeepSpeed's own
        _init_deepspeed(world)
        if config.precision == "autocast":
            # Around the model's own forward, for DeepSpeed switches off one that is around its engine. A cache would
            # keep the bf16 copies of all weights, whole, until the end of the forward pass.
            autocast = torch.autocast(world.device.type, torch.bfloat16, cache_enabled=False)
            model.forward = autocast(model.forward)
        layers = _layer_classes(model)
        if config.zero_stage == 3 and layers:  # each is gathered whole: one collective instead of one per matrix
            deepspeed.utils.set_z3_leaf_modules(model, layers)
        adamw = torch.optim.AdamW(
            [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups],
            betas=(optimizer.betas[0], optimizer.betas[1]),
            fused=True,
        )
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model,
            optimizer=adamw,
            config=deepspeed_config(config, rows_per_batch, world.size, 0.0 if self._is_plain else self._clipping),
            dist_init_required=False,
        )
        self._masters = Masters(model, self._optimizer, config.zero_stage, ema, world.rank)
        self._norms = PartNorms(self._optimizer, groups, config.zero_stage)

    @property
    def model(self) -> nn.Module:
        """The wrapped module itself, for what is not a training forward."""
        return self._engine.module

    @property
    def num_parameters(self) -> int:
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters())

    @property
    def learning_rates(self) -> dict[str, float]:
        """Of the last step, by part."""
        return {g.part: p["lr"] for g, p in zip(self.groups, self._optimizer.param_groups, strict=True)}

    def __call__(self, *inputs: Any) -> Any:
        return self._engine(*inputs)

    def train(self, mode: bool = True) -> None:
        self._engine.train(mode)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of `loss` to the step's, on this rank and micro-batch."""
        # DeepSpeed averages over ranks; its division by the number of micro-batches is switched off.
        self._engine.backward(loss * self.world.size, scale_wrt_gas=False)
        self._backwards += 1
        if self._backwards < self.config.accumulation:
            self._engine.step()  # does nothing but count before the last micro-batch

    def step(self, lr_multiplier: float = 1.0) -> float:
        """Updates the weights; the norm of the gradient before clipping. Not finite: every rank skipped the update."""
        if self._backwards != self.config.accumulation:
            raise RuntimeError(f"step() after {self._backwards} of {self.config.accumulation} backward passes")
        self._backwards = 0
        for group, param_group in zip(self.groups, self._optimizer.param_groups, strict=True):
            param_group["lr"] = group.learning_rate * lr_multiplier
        self._norms.clear()
        if self.config.zero_stage == 0:
            norm = self._norms.measure()
            if self._is_plain:
                return self._plain_step(norm)
        self._engine.step()  # ZeRO checks the norm itself and skips, on all ranks alike
        return float(self._engine.get_global_grad_norm())

    def _plain_step(self, norm: Tensor) -> float:
        """Clips here, because DeepSpeed would neither report the norm nor skip a step that is not finite."""
        parameters = [p for group in self.groups for p in group.parameters]
        if not math.isfinite(norm):
            self._engine.zero_grad()  # on all ranks alike; AdamW passes over parameters without a gradient
        elif self._clipping:
            nn.utils.clip_grads_with_norm_(parameters, self._clipping, norm)
        self._engine.step()
        return float(norm)

    def part_norms(self) -> dict[str, float]:
        """Of the gradient of the last step, before clipping, by part."""
        return self._norms.by_part()

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The model with whole weights on every rank, to export or to look at; every rank must enter."""
        if self.config.zero_stage != 3:
            yield self.model
            return
        with deepspeed.zero.GatheredParameters(list(self.model.parameters())):
            yield self.model

    def update_average(self, step: int) -> None:
        """Takes the weights that `step` (0, 1, …) left into their average, if one is kept."""
        self._masters.average.update(step)

    def averaged(self) -> AbstractContextManager:
        """Inside, the model has the average of its weights, if one is kept and shown; every rank must enter."""
        return self._masters.averaged()

    def state_dict(self) -> dict[str, Tensor]:
        """Whole weights on the CPU of the main rank, none elsewhere; gathered one parameter at a time."""
        state = {}
        for name, parameter in self.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.config.zero_stage == 3):
                if self.world.is_main:
                    state[name] = parameter.detach().cpu().clone()
        return state

    def files(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What this rank writes into a checkpoint, by file name; the main one `state` as well, for `load` to return."""
        own = {"shard": self._masters.state_dict(), "rng": save_rng()}
        files = {f"{kind}-{self.world.rank:05d}.pt": part for kind, part in own.items()}
        facts = {"world_size": self.world.size, "untrained": self._sum_of_the_untrained()}
        return files | ({"state.pt": {**state, **facts}} if self.world.is_main else {})

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Restores what `files` had, and returns its `state`. Any number of ranks may go on.

        Random generators continue where their number is the same, and start anew elsewhere: rows change ranks as well.
        """
        state = load_state(checkpoint / "state.pt")
        self._masters.load([checkpoint / f"shard-{rank:05d}.pt" for rank in range(state["world_size"])])
        if state["untrained"] != self._sum_of_the_untrained():
            raise ValueError(
                f"{checkpoint} was made with other frozen weights or codebooks: `init` or `tokenizer` has been written "
                "anew since the run began; use another `out`"
            )
        if state["world_size"] == self.world.size:
            restore_rng(load_state(checkpoint / f"rng-{self.world.rank:05d}.pt"))
        else:
            reseed_rng(state["step"], self.world.rank)
            logger.warning(
                "%s is of %d process(es), now there are %d: a step has as many rows as they × engine.accumulation × "
                "data.rows_per_batch, and dropout draws other numbers",
                *(checkpoint, state["world_size"], self.world.size),
            )
        return state

    def _sum_of_the_untrained(self) -> int:
        """A checksum of what checkpoints leave out: frozen weights and buffers, the codebooks among them."""
        return int(self.world.sum(self._masters.sum_of_the_untrained().to(self.world.device)))


def _layer_classes(model: nn.Module) -> list[type[nn.Module]]:
    """The classes of what the model holds in lists: the layers of its transformers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list({type(layer) for layers in lists for layer in layers})
