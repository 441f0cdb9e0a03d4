"""Many requests, one model: a single thread that runs what waits in batches, first come, first served.

Jobs of equal `key` may share a batch. Results go to each job's `emit`, which is called from that thread; the last of
them is a `Done` or an exception.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serve.config import Limits

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """So much waits already that one more would wait too long."""


class Abandoned(Exception):
    """Nobody waits for any result of a batch any more."""


@dataclass(frozen=True)
class Done:
    """The last result of a job."""

    value: Any


@dataclass(eq=False)
class Job:
    """A request for the model. Whoever waits for it sets `abandoned` when he stops waiting."""

    key: tuple[Any, ...]  # its kind, and the settings that a batch shares
    rows: int
    request: Any
    emit: Callable[[Any], None]
    deadline: float  # on time.monotonic's clock
    abandoned: bool = False

    @property
    def wanted(self) -> bool:
        return not self.abandoned and time.monotonic() < self.deadline


def stop_unless_wanted(jobs: Sequence[Job]) -> None:
    """Called at every step of a batch, so that work for nobody ends there."""
    if not any(job.wanted for job in jobs):
        raise Abandoned


class Batcher:
    """`run(jobs)` makes one batch of at most `limits.batch_rows` rows; what it raises goes to all of its jobs."""

    def __init__(self, run: Callable[[list[Job]], None], limits: Limits) -> None:
        self.limits, self._run = limits, run
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job; raises QueueFull."""
        with self._changed:
            self._waiting = deque(job for job in self._waiting if job.wanted)
            if len(self._waiting) >= self.limits.queue or not self._open:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread after the batch it is at; jobs that still wait are told so."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()
        while self._waiting:
            self._waiting.popleft().emit(QueueFull())

    def _work(self) -> None:
        while (jobs := self._next_batch()) is not None:
            if not (jobs := [job for job in jobs if job.wanted]):
                continue
            try:
                self._run(jobs)
            except Abandoned:
                log.info("a batch of %d was given up: nobody waits for it any more", len(jobs))
            except Exception as error:  # the next batch must run whatever happened to this one
                log.exception("a batch of %d failed", len(jobs))
                for job in jobs:
                    job.emit(error)

    def _next_batch(self) -> list[Job] | None:
        """The oldest job and those that may join it, waiting a moment for more; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            if not self._open:
                return None
            batch = [self._waiting.popleft()]
            until = time.monotonic() + self.limits.batch_wait
            while True:
                self._gather(batch)
                if sum(job.rows for job in batch) >= self.limits.batch_rows:
                    return batch
                if not self._open or not self._changed.wait(until - time.monotonic()):
                    return batch

    def _gather(self, batch: list[Job]) -> None:
        """Moves what may join the batch, in order, until one does not fit."""
        room = self.limits.batch_rows - sum(job.rows for job in batch)
        for job in [job for job in self._waiting if job.key == batch[0].key]:
            if job.rows > room:
                return
            self._waiting.remove(job)
            batch.append(job)
            room -= job.rows
