"""The queue in front of the model: who shares a batch, who waits, who is told to come back."""

import threading
import time

import pytest

from serve.batcher import Batcher, Done, Job, QueueFull, stop_unless_wanted
from serve.config import Limits


class Bench:
    """A batcher whose first batch is held back until everything else is queued."""

    def __init__(self, **limits) -> None:
        self.batches: list[list[str]] = []
        self.results: dict[str, list] = {}
        self.gate = threading.Event()
        self.batcher = Batcher(self._run, Limits(**limits))

    def _run(self, jobs: list[Job]) -> None:
        self.batches.append([job.request for job in jobs])
        assert self.gate.wait(10)
        if jobs[0].key == "broken":
            raise ArithmeticError("the model is broken")
        stop_unless_wanted(jobs)
        for job in jobs:
            job.emit(Done(job.request.upper()))

    def submit(self, name: str, key: str = "a", rows: int = 1, seconds: float = 60.0) -> Job:
        self.results[name] = []
        job = Job(key, rows, name, self.results[name].append, time.monotonic() + seconds)
        self.batcher.submit(job)
        return job

    def hold(self) -> Job:
        """Occupies the thread."""
        job = self.submit("first", key="held")
        while not self.batches:
            time.sleep(0.001)
        return job

    def finish(self) -> list[list[str]]:
        self.gate.set()
        until = time.monotonic() + 10
        while self.batcher.num_waiting and time.monotonic() < until:
            time.sleep(0.001)
        self.batcher.close()
        return self.batches[1:]


def test_equal_settings_share_a_batch_and_nobody_is_overtaken_by_other_settings():
    bench = Bench(batch_rows=3, drawings=1)
    bench.hold()
    for name, key in (("p", "a"), ("q", "b"), ("r", "a"), ("s", "a"), ("t", "a"), ("u", "b")):
        bench.submit(name, key)
    assert bench.finish() == [["p", "r", "s"], ["q", "u"], ["t"]]
    assert {name: [result.value for result in results] for name, results in bench.results.items()} == {
        name: [name.upper()] for name in ("first", *"pqrstu")
    }


def test_rows_are_counted_and_order_is_kept_within_equal_settings():
    bench = Bench(batch_rows=4, drawings=4)
    bench.hold()
    for name, rows in (("p", 2), ("q", 3), ("r", 1)):
        bench.submit(name, rows=rows)
    assert bench.finish() == [["p"], ["q", "r"]]


def test_a_full_queue_refuses_and_what_nobody_wants_makes_room():
    bench = Bench(queue=2)
    bench.hold()
    kept, given_up = bench.submit("kept"), bench.submit("given up")
    with pytest.raises(QueueFull):
        bench.submit("refused")
    given_up.abandoned = True
    bench.submit("let in")
    assert bench.finish() == [["kept", "let in"]]
    assert kept.wanted and bench.results["given up"] == bench.results["refused"] == []


def test_late_jobs_are_not_run_and_a_batch_for_nobody_stops():
    bench = Bench()
    first = bench.hold()
    bench.submit("late", seconds=0.0)
    bench.submit("next", key="c")
    first.abandoned = True
    assert bench.finish() == [["next"]]
    assert bench.results == {"first": [], "late": [], "next": [Done("NEXT")]}


def test_a_batch_that_fails_tells_its_jobs_alone():
    bench = Bench()
    bench.hold()
    for name, key in (("p", "broken"), ("q", "a"), ("r", "broken")):
        bench.submit(name, key)
    assert bench.finish() == [["p", "r"], ["q"]]
    assert all(isinstance(bench.results[name][0], ArithmeticError) for name in "pr")
    assert bench.results["q"] == [Done("Q")]


def test_a_lone_job_waits_a_moment_for_company():
    bench = Bench(batch_wait=5.0, batch_rows=2, drawings=1)
    bench.gate.set()
    bench.submit("p")
    bench.submit("q")  # fills the batch, which starts at once
    assert bench.finish() == [] and bench.batches == [["p", "q"]]


def test_those_who_wait_at_the_end_are_told():
    bench = Bench()
    bench.hold()
    bench.submit("p")
    threading.Timer(0.02, bench.gate.set).start()
    bench.batcher.close()
    assert bench.results["first"] == [Done("FIRST")]
    assert [type(result) for result in bench.results["p"]] == [QueueFull]
    with pytest.raises(QueueFull):
        bench.submit("q")


def test_limits_make_sense():
    with pytest.raises(ValueError, match="queue=0 must be above 0"):
        Limits(queue=0)
    with pytest.raises(ValueError, match="8 drawings of one request exceed a batch of 4"):
        Limits(batch_rows=4)
