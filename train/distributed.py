"""The processes of one run: who am I, how many are we, and the few collectives that training needs.

Under torchrun the environment says so; a single process started by hand gets a world of one. NCCL where CUDA is, gloo
elsewhere: the same code runs on two CPU processes and on many nodes. A world of one needs no process group.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

WEEK = 7 * 24 * 60  # minutes: for stages whose processes wait for the last share of another and for nothing before
BUCKET = 1 << 25  # numbers that one all-reduce of gradients carries: 128 MiB of fp32


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on every rank; `tensor` itself is left as it is."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over ranks, on every rank."""
        return self.sum(tensor) / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes its mean over ranks; all ranks must have gradients for the same parameters.

        Plain gradients, reduced once a step, instead of DistributedDataParallel: nothing wraps the model, and neither
        micro-batches nor the gradients that the adversarial weight takes on the way need a special case. What is lost
        is the overlap of the reduction with the backward pass.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = (flat / self.size).split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def gather(self, value: Any) -> list[Any]:
        """A small Python object of every rank, in rank order, on every rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
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


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours that together have about BUCKET numbers."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def join_world() -> World:
    """The world that torchrun made; a process started by hand is a world of one, without group and collectives."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return init_world()
    return World(device=torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


def init_world(timeout_minutes: int = 30) -> World:
    """Joins the process group (once) and divides this machine's cores among its processes."""
    on_this_machine = os.environ.get("LOCAL_SIZE", "1")  # what DeepSpeed's launcher calls LOCAL_WORLD_SIZE
    environment = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": on_this_machine}
    environment["MASTER_ADDR"] = "127.0.0.1"
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
