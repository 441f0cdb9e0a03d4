"""Interleaved timing: A B A B …, so that whatever else the machine does falls on all alike; medians."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def work_clock() -> float:
    """Seconds of this process: on a GPU those of the wall, on CPUs those that it computed."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def medians(
    contenders: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each contender over `repeats` rounds, after one round that warms up.

    With `time.process_time` as clock, what this process computed: one thread can be measured on a busy machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, contender in contenders.items():
            _wait()
            started = clock()
            contender()
            _wait()
            if turn:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU thread(s)"
    return f"{device}, {platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"


def write_json(path: str | None, figures: dict[str, Any]) -> None:
    """What was measured, and on what."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
