"""How fast a stage trains, what it waits for, and what share of the machine's arithmetic it uses."""

import resource
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from data.batch import Batch
from data.loader import Step
from train.distributed import World


class RateMeter:
    """Rates over all ranks since the last call of `means`; validation and saving do not count.

    flops: model FLOPs of a batch (train/flops.py); peak: FLOP/s of this process at most, for the MFU.
    """

    def __init__(self, world: World, flops: Callable[[Batch], float], peak: float) -> None:
        self.world, self.flops, self.peak = world, flops, peak
        self._waited = 0.0  # for the step that is being made
        self._forget()

    def _forget(self) -> None:
        self._steps = self._positions = self._images = self._flops = self._seconds = self._waiting = 0.0

    def waiting(self, steps: Iterable[Step]) -> Iterator[Step]:
        """`steps`, with the time that the loop waits for each."""
        iterator = iter(steps)
        while True:
            started = time.perf_counter()
            data = next(iterator, None)
            self._waited = time.perf_counter() - started
            if data is None:
                return
            yield data

    def add(self, data: Step, seconds: float) -> None:
        """A step, and the seconds that it took beside the waiting."""
        self._steps += 1
        self._positions += sum(batch.input_ids.numel() for batch in data.micro_batches)
        self._images += sum(len(batch.pixel) for batch in data.micro_batches)
        self._flops += sum(map(self.flops, data.micro_batches))
        self._seconds += seconds + self._waited
        self._waiting += self._waited

    def means(self) -> dict[str, float]:
        """A collective of all ranks. Seconds are the mean over ranks, memory is the largest of any."""
        own = [self._positions, self._images, self._flops / self.peak, self._seconds, self._waiting]
        positions, images, busy, seconds, waiting = self.world.sum(
            torch.tensor(own, dtype=torch.float64, device=self.world.device)
        ).tolist()
        steps = max(self._steps, 1)
        self._forget()
        seconds = max(seconds, 1e-9)  # of all ranks together
        return {
            "tokens_per_second": positions / seconds * self.world.size,
            "images_per_second": images / seconds * self.world.size,
            "mfu": busy / seconds,
            "step_seconds": seconds / self.world.size / steps,
            "data.wait_seconds": waiting / self.world.size / steps,
            "data.wait_share": waiting / seconds,
            "peak_memory_gb": max(self.world.gather(peak_memory(self.world.device))) / 2**30,
        }


def peak_memory(device: torch.device) -> int:
    """Bytes: what tensors have taken on the GPU at most, or the largest resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matmul_peak(dtype: torch.dtype, device: torch.device, seconds: float = 0.3) -> float:
    """FLOP/s of a large square product: the best of those that fit into `seconds`, at the precision that is set."""
    size, repeats = (8192, 5) if device.type == "cuda" else (1024, 1)
    generator = torch.Generator(device).manual_seed(0)  # zeros would cost a GPU less power than real numbers do
    matrix = torch.randn(size, size, generator=generator, device=device).to(dtype)
    product, best, begun = torch.empty_like(matrix), float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        for _ in range(repeats):
            torch.mm(matrix, matrix, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - started) / repeats)
    return 2 * size**3 / best
