"""The processes of one run: who am I, how many are we, and the few collectives that training needs.

Under torchrun the environment says so; a single process started by hand gets a world of one. NCCL where CUDA is, gloo
elsewhere: the same code runs on two CPU processes and on many nodes.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on every rank; `tensor` itself is left as it is."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """A small Python object of every rank, in rank order, on every rank."""
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        dist.barrier()

    def on_main(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Calls it on the main rank while the others wait; a user's mistake is raised on all ranks."""
        mistake = None
        if self.is_main:
            try:
                function(*arguments)
            except (ValueError, OSError) as error:
                mistake = error
        mistake = self.gather(mistake)[0]
        if mistake is not None:
            raise mistake


def init_world(timeout_minutes: int = 30) -> World:
    """Joins the process group (once) and divides this machine's cores among its processes."""
    environment = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    for name, value in environment.items():
        os.environ.setdefault(name, str(value))
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    rank, size, local_rank, local_size = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    else:  # torchrun sets one thread per process; two processes on eight cores want four each
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // local_size, 1))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=timeout_minutes))
    return World(rank, size, local_rank, local_size, device)


def leave_world() -> None:
    """Ends the process group, if there is one: gloo's threads left running abort the interpreter at its exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
