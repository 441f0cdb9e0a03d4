"""The run folder of a stage: everything a run leaves behind except its weights, the same for every stage.

    config.yaml     the resolved config            log.jsonl      one object a line: step, seconds, flat dotted metrics
    samples/*.png   pictures made on the way       result.json    the final figures, with the seconds of the whole run
    checkpoints/    step-000123/ (train/checkpoint.py, train/engine.py)            export/    the finished model

The JSON lines are always written; wandb and tensorboard repeat them where the config asks.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from train.config import save_config

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class TrackingConfig:
    wandb: bool = False
    wandb_mode: str = "offline"  # nothing leaves the machine unless asked to
    tensorboard: bool = False
    project: str = "dualtoken"


class Run:
    """A run folder. On ranks other than the main one every method does nothing, so that loops need no conditions."""

    def __init__(
        self, folder: str | Path, config: Any, tracking: TrackingConfig = TrackingConfig(), is_main: bool = True
    ):
        self.folder, self.is_main = Path(folder), is_main
        self.checkpoints = self.folder / "checkpoints"
        self.export = self.folder / "export"
        self._log_path = self.folder / "log.jsonl"
        self._wandb: Any = None
        self._tensorboard: Any = None
        if is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            partial = self.folder / "config.yaml.partial"
            save_config(config, partial)
            os.replace(partial, self.folder / "config.yaml")
        earlier = max((line.get("seconds", 0.0) for line in read_log(self._log_path)), default=0.0)
        self._started = time.monotonic() - earlier
        self._start_trackers(config, tracking)

    @property
    def seconds(self) -> float:
        """Time spent on this run, earlier starts included (up to the last line that each of them logged)."""
        return time.monotonic() - self._started

    @property
    def result(self) -> dict[str, Any] | None:
        """What `finish` wrote, or None while the run is not finished. Raises ValueError for a damaged file."""
        path = self.folder / "result.json"
        if not path.exists():
            return None
        try:
            result = json.loads(path.read_text())
            result["seconds"]  # `finish` always writes it
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it, and the run goes on from its checkpoint"
            ) from error
        return result

    def rewind(self, step: int) -> None:
        """Drops log lines beyond `step`, the step a run resumes from (0: a fresh start), so that none is repeated."""
        if self.is_main and self._log_path.exists():
            kept = [line for line in read_log(self._log_path) if line["step"] <= step] if step else []
            write_atomically(self._log_path, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, step: int, **metrics: Any) -> None:
        """Appends one line of numbers, 0-d tensors and texts; what is not finite becomes null, for JSON has no NaN."""
        if not self.is_main:
            return
        scalars = {name: _scalar(value) for name, value in metrics.items()}
        with self._log_path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(self.seconds, 3), **scalars}, allow_nan=False) + "\n")
        numbers = {name: value for name, value in scalars.items() if isinstance(value, int | float)}
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name.replace(".", "/"), value, step)

    def progress(self, total: int, desc: str, initial: int = 0) -> tqdm:
        """A bar with rate and ETA; the caller adds the loss by `set_postfix`. Rare lines where nobody watches.

        One within another vanishes when it is done.
        """
        interval = 0.5 if sys.stderr.isatty() else 30.0
        return tqdm(
            total=total, desc=desc, initial=initial, disable=not self.is_main, leave=None, mininterval=interval,
            dynamic_ncols=True,
        )  # fmt: skip

    def save_image(self, name: str, image: Image.Image, step: int | None = None) -> None:
        """`step`: of a picture that is made again and again, which wandb then shows as a series."""
        if not self.is_main:
            return
        path = self.folder / "samples" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if self._wandb is not None:
            import wandb

            self._wandb.log({name if step is None else "samples": wandb.Image(image, caption=name)}, step=step)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json: its presence says that the run is complete."""
        if not self.is_main:
            return
        text = json.dumps({**result, "seconds": round(self.seconds, 3)}, indent=2, allow_nan=False)
        write_atomically(self.folder / "result.json", text + "\n")
        if self._wandb is not None:
            self._wandb.finish()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _start_trackers(self, config: Any, tracking: TrackingConfig) -> None:
        if self.is_main and tracking.wandb:
            import wandb

            self._wandb = wandb.init(
                project=tracking.project,
                name=self.folder.name,
                dir=self.folder,
                mode=tracking.wandb_mode,  # type: ignore[arg-type]
                config=asdict(config),
            )
        if self.is_main and tracking.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("tracking.tensorboard=true needs the package tensorboard: pip install it") from error
            self._tensorboard = SummaryWriter(str(self.folder / "tensorboard"))


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl in order; a last line torn by a kill is left out."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return lines


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures → {"section.name": number}; what is no number is left out."""
    flat: dict[str, float] = {}
    for name, part in value.items():
        if isinstance(part, dict):
            flat |= flatten(part, f"{prefix}{name}.")
        elif isinstance(part, int | float) and not isinstance(part, bool):
            flat[prefix + name] = part
    return flat


def write_atomically(path: Path, content: str | bytes) -> None:
    """Beside, fsync, rename: a reader sees the old file or the new one, never half of either."""
    beside = path.with_name(path.name + ".partial")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _scalar(value: Any) -> int | float | str | None:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
