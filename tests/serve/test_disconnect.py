"""A client that goes away stops the work that was done for it alone, and nobody else's."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

import serve.engine
from serve.batcher import Job
from tests.serve.clients import CHAT, DRAW, HELLO


class Steps:
    """A model that takes a step when it is told to, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.count, self.begun, self.go = 0, threading.Event(), threading.Event()
        original = getattr(serve.engine, name)

        def held(*args, **kwargs):
            for step in original(*args, **kwargs):
                self.count += 1
                self.begun.set()
                assert self.go.wait(10)
                yield step

        monkeypatch.setattr(serve.engine, name, held)


def request(url: str, path: str, body: dict) -> socket.socket:
    """A connection on which a request was sent and no answer was read."""
    parts, content = urlsplit(url), json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((parts.hostname, parts.port))
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize(
    ("path", "body", "makes"),
    [
        (DRAW, {"prompt": "apple"}, "stream_images"),
        (CHAT, {**HELLO, "max_tokens": 12}, "replies"),
        (CHAT, {**HELLO, "max_tokens": 12, "stream": True}, "replies"),
    ],
)
def test_work_ends_with_its_client(make_live, monkeypatch, path, body, makes):
    live, jobs = make_live(), list[Job]()
    steps = Steps(monkeypatch, makes)
    submit = live.engine.batcher.submit
    monkeypatch.setattr(live.engine.batcher, "submit", lambda job: (jobs.append(job), submit(job)))
    leaver = request(live.url, path, body)
    assert steps.begun.wait(10)
    waiter = request(live.url, path, body)  # queued behind it
    leaver.close()
    until = time.monotonic() + 10
    while not jobs[0].abandoned and time.monotonic() < until:
        time.sleep(0.005)
    assert jobs[0].abandoned and steps.count == 1
    steps.go.set()
    answered = waiter.recv(100)
    waiter.close()
    assert answered.startswith(b"HTTP/1.1 200")
    assert httpx.get(f"{live.url}/health").json() == {"status": "ok"}


def test_a_batch_goes_on_for_those_who_stay(make_live, monkeypatch):
    live = make_live(batch_wait=0.2, batch_rows=2, drawings=1)
    steps = Steps(monkeypatch, "stream_images")
    leaver, stayer = (request(live.url, DRAW, {"prompt": "apple", "seed": seed, "top_k": 0}) for seed in (1, 2))
    assert steps.begun.wait(10)
    leaver.close()
    steps.go.set()
    assert stayer.recv(100).startswith(b"HTTP/1.1 200")
    stayer.close()
    assert steps.count == live.engine.model.visual.grid[0]
