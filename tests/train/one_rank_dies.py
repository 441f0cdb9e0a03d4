"""A stage for tests of the launcher: rank 1 ends in some way while the other waits for it."""

import os
import signal
from dataclasses import dataclass

import torch

from train.distributed import init_world
from train.launch import run_launched


@dataclass(frozen=True)
class DyingConfig:
    way: str = ""


def main(config: DyingConfig) -> None:
    world = init_world()
    for step in range(10_000):
        world.sum(torch.ones(1000))
        if step == 3 and world.rank == 1:
            if config.way == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a bug of ours")


if __name__ == "__main__":
    run_launched(DyingConfig, main)
