"""A function over a stream in worker threads, the results in the order of the stream.

The order does not depend on the number of threads, so a stream can be resumed with another number of them. Threads and
not processes: Pillow decodes and scales without Python's lock, and pictures need not be copied between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Results in order, up to `ahead` of them made before they are asked for; without workers, each when asked for."""
    if not num_workers:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
