"""A job's results on the event loop, and the end of the job where nobody waits for them any more."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from serve.batcher import Done, Job, QueueFull
from serve.errors import ApiError

T = TypeVar("T")


class Results:
    """`async for` over what a job emits, `Done` last; ApiError where it fails or takes longer than `seconds`."""

    def __init__(
        self, submit: Callable[[Any, Callable[[Any], None], float], Job], request: Any, seconds: float
    ) -> None:
        """Queues the job at once, so that a full queue is known before an answer begins."""
        self._results: asyncio.Queue[Any] = asyncio.Queue()
        self._deadline, self._seconds = time.monotonic() + seconds, seconds
        loop = asyncio.get_running_loop()

        def emit(result: Any) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server is going down
                loop.call_soon_threadsafe(self._results.put_nowait, result)

        try:
            self.job = submit(request, emit, self._deadline)
        except QueueFull as error:
            raise ApiError(
                429, "too many requests are waiting: try again in a moment.", code="busy", retry_after=1
            ) from error

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while True:
                result = await asyncio.wait_for(self._results.get(), self._deadline - time.monotonic())
                if isinstance(result, Exception):
                    raise _as_api_error(result)
                yield result
                if isinstance(result, Done):
                    return
        except asyncio.TimeoutError as error:
            raise ApiError(504, f"the answer took longer than {self._seconds:g} seconds.", code="timeout") from error
        finally:
            self.job.abandoned = True


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`work`, ended with ClientDisconnect as soon as its client is gone."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, QueueFull):
        return ApiError(503, "the server is going down.", code="shutting_down", retry_after=10)
    return ApiError(500, "the model failed on this request; the server's log says why.")
