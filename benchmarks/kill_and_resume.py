"""Kills a two-process ZeRO-3 run at random moments and starts it again, until it has ended by itself.

    python benchmarks/kill_and_resume.py --kills 20

compares the weights and the log with those of a run that was left alone: bit for bit, or it exits with 1. A kill is
SIGKILL to both processes at a random moment of three kinds: while they start, in a step, while a checkpoint is written.
The model is tiny and the data made up. Processes are forked from one that has imported everything, for imports take far
longer than all the rest; tests/train/test_train_mllm.py kills what torchrun has started.
"""

import argparse
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, as a file

import torch
import yaml
from safetensors.torch import load_file

from tests.train.tiny_mllm import make_world, tiny_document
from train.checkpoint import latest_checkpoint
from train.config import load_config
from train.distributed import leave_world
from train.run import read_log
from train.train_mllm import TrainMllmConfig
from train.train_mllm import main as train

KINDS = ("while starting", "in a step", "while saving")
CLOCKS = ("seconds", "step_seconds", "tokens_per_second", "images_per_second", "mfu", "peak_memory_gb", "data.wait")


def in_rank(rank: int, port: int, config: Path, overrides: list[str]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 2)  # of the survivor of a kill, too
    train(load_config(TrainMllmConfig, config, overrides))
    leave_world()


def start(config: Path, out: Path, *overrides: str) -> list[BaseProcess]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = multiprocessing.get_context("forkserver")
    arguments = (port, config, [f"out={out}", *overrides])
    processes = [server.Process(target=in_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def wait(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(f"a process ended with {process.exitcode}")


def run_on(processes: list[BaseProcess]) -> bool:
    return all(process.is_alive() for process in processes)


def last_step(out: Path) -> int:
    return max((line["step"] for line in read_log(out / "log.jsonl")), default=0)


def wait_for(kind: str, out: Path, processes: list[BaseProcess], chance: random.Random, startup: float) -> bool:
    """Returns at a moment of the kind; False if the run ended before it came."""
    first = last_step(out)
    if kind == "while starting":
        until = time.monotonic() + chance.uniform(0, startup)
        while time.monotonic() < until and last_step(out) <= first and run_on(processes):
            time.sleep(0.01)
        return run_on(processes)
    target = first + chance.randrange(1, 9)
    while last_step(out) < target and run_on(processes):
        time.sleep(0.01)
    if kind == "in a step":
        time.sleep(chance.uniform(0, 0.3))
    while kind == "while saving" and run_on(processes) and not list((out / "checkpoints").glob("*.partial")):
        time.sleep(0.0005)
    return run_on(processes)


def without_clocks(out: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith(CLOCKS)} for line in read_log(out / "log.jsonl")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder)
        loop = {"steps": arguments.steps, "log_every": 1, "checkpoint_every": 3, "save_in_background": True}
        document = tiny_document(folder, loop=loop, ema={"decay": 0.9})
        document["model"]["visual_dropout"] = 0.5  # draws random numbers in every step
        config, quiet, killed = folder / "tiny.yaml", folder / "quiet", folder / "killed"
        config.write_text(yaml.safe_dump(document))
        started = time.monotonic()
        processes = start(config, quiet, "loop.save_in_background=false")
        while last_step(quiet) < 1 and run_on(processes):
            time.sleep(0.05)
        startup = time.monotonic() - started
        wait(processes)
        moments: Counter[str] = Counter()
        while moments.total() < arguments.kills:
            processes, kind = start(config, killed), chance.choice(KINDS)
            if not wait_for(kind, killed, processes, chance, startup):
                wait(processes)
                sys.exit(f"the run ended after {moments.total()} kills: give more --steps")
            for process in processes:
                process.kill()
                process.join()
            moments[kind] += 1
            saved = latest_checkpoint(killed / "checkpoints")
            print(f"kill {moments.total()}, {kind}: step {last_step(killed)}, {saved and saved.name}", flush=True)
        wait(start(config, killed))
        weights = [load_file(out / "export/model.safetensors") for out in (quiet, killed)]
        different = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
        result = {
            "kills": dict(moments),
            "steps": arguments.steps,
            "tensors": len(weights[0]),
            "different": different,
            "same_log": without_clocks(quiet) == without_clocks(killed),
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        print(json.dumps(result, indent=2))
        sys.exit(1 if different or not result["same_log"] else 0)


if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["train.train_mllm"])
    main()
