"""The HTTP server's routes, in OpenAI's shapes, around one engine."""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mllm.messages import ContextLengthError
from serve.batcher import Done
from serve.chat_api import chunk, completion, event, finish_reason, parse_chat, usage
from serve.engine import Engine
from serve.errors import ApiError
from serve.image_api import drawings, parse_drawing
from serve.metrics import Metrics
from serve.middleware import Measure
from serve.results import Results, unless_gone

PARSERS = 4
"""Requests whose pictures are decoded at the same time: a picture of 16 megapixels takes 50 MB until it is scaled."""


class Api:
    """`token`: what every client must bear, or None; `image_folder`: where file: URLs may point, or None."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        name: str = "dualtoken",
        token: str | None = None,
        image_folder: Path | None = None,
    ) -> None:
        self.engine, self.metrics, self.name, self.token = engine, metrics, name, token
        self.limits, self.image_folder = engine.limits, image_folder
        self.created = int(time.time())

    def app(self, middleware: tuple[Middleware, ...] = ()) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/images/generations", self.draw, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
        ]
        handlers = {
            ApiError: lambda _, error: error.response(),
            HTTPException: lambda _, error: ApiError(error.status_code, f"{error.detail}.").response(),
            ClientDisconnect: lambda *_: Response(status_code=499),
            Exception: lambda *_: ApiError(500, "the server failed on this request; its log says why.").response(),
        }
        paths = frozenset(route.path for route in routes)
        measure = Middleware(Measure, metrics=self.metrics, paths=paths)
        self.parsers = CapacityLimiter(PARSERS)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await anyio.to_thread.run_sync(self.engine.batcher.close)

        return Starlette(
            routes=routes, exception_handlers=handlers, middleware=[measure, *middleware], lifespan=lifespan
        )

    async def chat(self, request: Request) -> Response:
        body = await self._body(request)
        call = await self._parse(parse_chat, body, self.name, self.limits, self.engine.see, self.image_folder)
        prepared = await self._parse(
            self.engine.chat_request, call.messages, call.settings, call.seed, call.max_new_tokens
        )
        results = Results(self.engine.submit_chat, prepared, self.limits.seconds)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}
        if call.stream:
            stream = self._stream(results, head, len(prepared.prompt.ids) if call.include_usage else None)
            return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        pieces, answered = await unless_gone(request, _collect(results))
        self.metrics.tokens.inc(answered.num_tokens)
        return JSONResponse(completion(head, "".join(pieces), len(prepared.prompt.ids), answered))

    async def draw(self, request: Request) -> Response:
        body = await self._body(request)
        drawing = parse_drawing(body, self.name, self.limits, self.engine.tokenizer.image_size)
        await self._parse(self.engine.check_drawing, drawing)
        results = Results(self.engine.submit_drawing, drawing, self.limits.seconds)
        _, images = await unless_gone(request, _collect(results))
        self.metrics.images.inc(len(images))
        return JSONResponse(await anyio.to_thread.run_sync(drawings, drawing, images))

    async def models(self, request: Request) -> Response:
        self._authorize(request)
        model = {"id": self.name, "object": "model", "created": self.created, "owned_by": "dualtoken"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, _: Request) -> Response:
        alive = self.engine.batcher.alive
        return JSONResponse({"status": "ok" if alive else "the model's thread has ended"}, 200 if alive else 503)

    async def show_metrics(self, request: Request) -> Response:
        self._authorize(request)
        self.metrics.queue.set(self.engine.batcher.num_waiting)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _stream(self, results: Results, head: dict[str, Any], prompt_tokens: int | None) -> AsyncIterator[bytes]:
        yield chunk(head, {"role": "assistant", "content": ""})
        try:
            async for result in results:
                if not isinstance(result, Done):
                    yield chunk(head, {"content": result})
                    continue
                self.metrics.tokens.inc(result.value.num_tokens)
                yield chunk(head, {}, finish_reason(result.value))
                if prompt_tokens is not None:
                    total = usage(prompt_tokens, result.value)
                    yield event({**head, "object": "chat.completion.chunk", "choices": [], "usage": total})
                yield b"data: [DONE]\n\n"
        except ApiError as error:  # the status is sent already
            yield event(error.document())

    async def _body(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request that may be served."""
        self._authorize(request)
        # A page of another site may send a form or plain text to this machine, but not this type.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "send JSON, with the header Content-Type: application/json.")
        try:
            raw = await asyncio.wait_for(_read(request, self.limits.body_bytes), self.limits.body_seconds)
        except asyncio.TimeoutError as error:
            raise ApiError(
                408, f"the request took longer than {self.limits.body_seconds:g} seconds to arrive."
            ) from error
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "the body is not JSON.") from error
        if not isinstance(body, dict):
            raise ApiError(400, "the body must be a JSON object.")
        return body

    def _authorize(self, request: Request) -> None:
        if self.token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise ApiError(401, "this server asks for its token: Authorization: Bearer TOKEN.", code="invalid_api_key")

    async def _parse(self, function: Any, *arguments: Any) -> Any:
        """Work of some milliseconds, beside the event loop; what is wrong with the request becomes an ApiError."""
        try:
            return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=self.parsers)
        except ValueError as error:
            code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
            raise ApiError(400, str(error), code=code) from error


async def _read(request: Request, limit: int) -> bytes:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > limit:
            raise ApiError(413, f"the request is larger than {limit} bytes: send smaller pictures.")
    return bytes(raw)


async def _collect(results: Results) -> tuple[list[Any], Any]:
    """All that came before the last result, and that one's value."""
    before: list[Any] = []
    async for result in results:
        if isinstance(result, Done):
            return before, result.value
        before.append(result)
    raise AssertionError("results end with Done or an error")
