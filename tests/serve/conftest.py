"""A tiny unified model with random weights (pictures of 16 pixels, 4 patches), and an engine around it."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import NamedTuple

import pytest
import torch
import uvicorn

from mllm.pretrained import Unified
from serve.app import Api
from serve.config import Limits
from serve.engine import Engine
from serve.metrics import Metrics
from serve.server import listen
from tests.eval.tiny_unified import build


@pytest.fixture(scope="session")
def unified() -> Unified:
    unified = build(context=128)
    with torch.no_grad():
        for parameter in unified.model.parameters():  # sharp enough that different questions have different answers
            parameter.add_(0.2 * torch.randn_like(parameter))
    return unified


@pytest.fixture
def make_engine(unified) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(**limits) -> Engine:
        engines.append(Engine(unified, Limits(**limits)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.batcher.close()


class Live(NamedTuple):
    url: str
    engine: Engine


@pytest.fixture
def make_live(make_engine) -> Iterator[Callable[..., Live]]:
    """A real server on a free port of this machine."""
    running: list[tuple[uvicorn.Server, Thread]] = []

    def make(**limits) -> Live:
        metrics, listening, engine = Metrics(), listen("127.0.0.1", 0), make_engine(**limits)
        engine.on_batch = metrics.observe_batch
        server = uvicorn.Server(uvicorn.Config(Api(engine, metrics).app(), log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return Live(f"http://127.0.0.1:{listening.getsockname()[1]}", engine)

    yield make
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
