"""What the tower's and the tokenizer's stage do around their step: resume, schedule, log, checkpoint, leave cleanly.

    for step in loop:
        batch = next(batches)
        …
        loop.record(loss=loss, **parts)

All ranks take the same steps: they agree on the mean of what they recorded, on a bad loss and on leaving.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from train.checkpoint import latest_checkpoint, load_checkpoint, restore_rng, save_rng
from train.checkpoint_writer import CheckpointWriter
from train.distributed import World
from train.optimizer import restore_optimizer
from train.retention import KeepConfig
from train.run import Run
from train.schedule import ScheduleConfig, lr_multiplier

MAX_BAD_STEPS = 20  # in a row, before the run stops


@dataclass(frozen=True)
class LoopConfig:
    steps: int = 1000
    log_every: int = 10  # 0: at the end alone, as every "every" of the stages
    checkpoint_every: int = 200
    keep: KeepConfig = field(default_factory=KeepConfig)
    save_in_background: bool = False  # training goes on while a copy in the CPU's memory is written
    allow_changes: list[str] = field(default_factory=list)  # keys that may differ from those that the run began with
    seed: int = 0


def is_due(step: int, every: int) -> bool:
    """Whether something happens after `step` steps that happens after every so many; 0 is never."""
    return every > 0 and step % every == 0


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Loop:
    """Iterates over steps. `parts` are the same on all ranks, `batches` are each rank's own; all are saved.

    Every optimizer among the parts follows the schedule.
    """

    def __init__(
        self,
        run: Run,
        config: LoopConfig,
        schedule: ScheduleConfig,
        parts: dict[str, Stateful],
        batches: Stateful,
        desc: str,
        world: World = World(),
    ):
        self.run, self.config, self.schedule, self.desc, self.world = run, config, schedule, desc, world
        self.parts, self.batches = parts, batches
        self.writer = CheckpointWriter(run.checkpoints, config.keep, config.save_in_background, world)
        self.optimizers = [p for p in parts.values() if isinstance(p, torch.optim.Optimizer)]
        self.peak_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self._window: list[dict[str, Tensor]] = []
        self._bad_steps = 0
        self._stopping = False

    def __iter__(self) -> Iterator[int]:
        start = self._resume()
        steps = self.config.steps
        previous = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stopping", True))
        try:
            with self.run.progress(steps, self.desc, initial=start) as bar:
                for step in range(start, steps):
                    self._set_rates(lr_multiplier(self.schedule, step, steps))
                    yield step
                    done = step + 1
                    if is_due(done, self.config.log_every) or done == steps:
                        bar.set_postfix(loss=f"{self._log(done):.4f}")
                    bar.update()
                    stopping = self._stop_requested()
                    self.writer.poll()
                    if is_due(done, self.config.checkpoint_every) or done == steps or stopping:
                        self._save(done)
                    if stopping:
                        self.writer.finish()
                        raise SystemExit(143)  # what the shell reports for SIGTERM; the same command continues
            self.writer.finish()
        finally:
            signal.signal(signal.SIGTERM, previous)

    def record(self, **metrics: Tensor) -> None:
        """Adds one step's 0-d tensors to the window that the next log line averages. All ranks must give one `loss`
        and the same norms, which end in `grad_norm`; too many steps in a row without finite ones are a ValueError.
        """
        self._window.append({k: v.detach() for k, v in metrics.items()})
        deciding = [value for name, value in metrics.items() if name == "loss" or name.endswith("grad_norm")]
        finite = all(torch.isfinite(value) for value in deciding)
        self._bad_steps = 0 if finite else self._bad_steps + 1
        if self._bad_steps > MAX_BAD_STEPS:
            raise ValueError(
                f"{self.desc}: the loss or its gradient was not finite for {self._bad_steps} steps in a row; lower "
                "optimizer.learning_rate, or look at the log for the part that went first"
            )

    def _log(self, step: int) -> float:
        """Writes the window's means over steps and ranks and empties it; returns the mean loss."""
        if not self._window:
            return float("nan")
        names = dict.fromkeys(name for metrics in self._window for name in metrics)
        series = {name: [m[name].float() for m in self._window if name in m] for name in names}
        means = self.world.mean(torch.stack([torch.stack(values).mean() for values in series.values()])).tolist()
        self._window = []
        metrics = dict(zip(names, means, strict=True))
        self.run.log(step, **metrics, lr=self.optimizers[0].param_groups[0]["lr"])
        return metrics["loss"]

    def _set_rates(self, multiplier: float) -> None:
        for optimizer, rates in zip(self.optimizers, self.peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier

    def _stop_requested(self) -> bool:
        """Whether any rank got SIGTERM: all leave together."""
        if self.world.size == 1:
            return self._stopping
        return bool(self.world.sum(torch.tensor(self._stopping, dtype=torch.int32, device=self.world.device)))

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.rewind(0)
            torch.manual_seed(self.config.seed)
            return 0
        state = load_checkpoint(checkpoint)
        if len(state.get("ranks", ())) not in (0, self.world.size):
            raise ValueError(
                f"checkpoint {checkpoint} is of {len(state['ranks'])} process(es), this run has {self.world.size}; "
                f"continue with --nproc {len(state['ranks'])}, or use another `out`"
            )
        try:
            for name, part in self.parts.items():
                if isinstance(part, torch.optim.Optimizer):
                    restore_optimizer(part, state[name])
                else:
                    part.load_state_dict(state[name])
            own = state["ranks"][self.world.rank]
            self.batches.load_state_dict(own["batches"])
            self._window = [{k: v.to(self.world.device) for k, v in metrics.items()} for metrics in own["window"]]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"checkpoint {checkpoint} does not fit this config ({reason}); use another `out`"
            ) from error
        restore_rng(own["rng"])
        self.run.rewind(state["step"])
        return state["step"]

    def _save(self, step: int) -> None:
        window = [{name: value.cpu() for name, value in metrics.items()} for metrics in self._window]
        own = {"batches": self.batches.state_dict(), "rng": save_rng(), "window": window}
        ranks = self.world.gather(own)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        self.writer.save(step, {"state.pt": {**state, "step": step, "ranks": ranks}} if self.world.is_main else {})
