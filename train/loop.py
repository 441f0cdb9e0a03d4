"""What every single-process stage does around its step: resume, schedule, log, checkpoint, leave cleanly.

    for step in loop:
        batch = next(batches)
        …
        loop.record(loss=loss, **parts)
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from train.checkpoint import latest_checkpoint, load_checkpoint, restore_rng, save_checkpoint, save_rng
from train.run import Run
from train.schedule import ScheduleConfig, lr_multiplier

MAX_BAD_STEPS = 20  # in a row, before the run stops


@dataclass(frozen=True)
class LoopConfig:
    steps: int = 1000
    log_every: int = 10
    checkpoint_every: int = 200
    seed: int = 0


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Loop:
    """Iterates over steps. `parts` are saved and restored by name; the first optimizer of them follows the schedule."""

    def __init__(self, run: Run, config: LoopConfig, schedule: ScheduleConfig, parts: dict[str, Stateful], desc: str):
        self.run, self.config, self.schedule, self.parts, self.desc = run, config, schedule, parts, desc
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
                    if done % self.config.log_every == 0 or done == steps:
                        bar.set_postfix(loss=f"{self._log(done):.4f}")
                    bar.update()
                    if done % self.config.checkpoint_every == 0 or done == steps or self._stopping:
                        self._save(done)
                    if self._stopping:
                        raise SystemExit(143)  # what the shell reports for SIGTERM; the same command continues
        finally:
            signal.signal(signal.SIGTERM, previous)

    def record(self, **metrics: Tensor) -> None:
        """Adds one step's 0-d tensors to the window that the next log line averages."""
        self._window.append({k: v.detach() for k, v in metrics.items()})
        self._bad_steps = 0 if torch.isfinite(metrics["loss"]) else self._bad_steps + 1
        if self._bad_steps > MAX_BAD_STEPS:
            raise ValueError(
                f"{self.desc}: the loss was not finite for {self._bad_steps} steps in a row; lower "
                "optimizer.learning_rate, or look at the log for the part that went first"
            )

    def _log(self, step: int) -> float:
        """Writes the window's means and empties it; returns the mean loss."""
        if not self._window:
            return float("nan")
        means = {name: torch.stack([m[name].float() for m in self._window]).mean().item() for name in self._window[0]}
        self._window = []
        self.run.log(step, **means, lr=self.optimizers[0].param_groups[0]["lr"])
        return means["loss"]

    def _set_rates(self, multiplier: float) -> None:
        for optimizer, rates in zip(self.optimizers, self.peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.rewind(0)
            torch.manual_seed(self.config.seed)
            return 0
        state = load_checkpoint(checkpoint)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"checkpoint {checkpoint} does not fit this config ({reason}); use another `out`"
            ) from error
        restore_rng(state["rng"])
        self.run.rewind(state["step"])
        return state["step"]

    def _save(self, step: int) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        save_checkpoint(self.run.checkpoints, step, {**state, "step": step, "rng": save_rng()})
