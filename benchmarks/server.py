"""Requests per second and latency of the HTTP server, at several numbers of clients.

    python -m benchmarks.server --model runs/demo/instruct/export

The server runs in this process on a free port of this machine; each client sends its next request when its last one is
answered. Drawings have 64 patches in the demo's model and settings of `dualtoken generate`; questions are about a
picture that the model drew.
"""

import argparse
import asyncio
import statistics
import time
from threading import Thread

import httpx
import uvicorn

from benchmarks.timing import machine
from eval.load import load
from serve.app import Api
from serve.config import Limits
from serve.engine import Engine
from serve.metrics import Metrics
from serve.server import listen

PROMPTS = ["a red apple, 3d style", "a waving hand, flat style", "flag of Italy, 3d style", "a blue heart, flat style"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/instruct/export")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=32, help="of each kind, at least one a client")
    args = parser.parse_args()
    metrics, listening = Metrics(), listen("127.0.0.1", 0)
    engine = Engine(load(args.model), Limits(batch_rows=32, queue=256), metrics.observe_batch)
    server = uvicorn.Server(uvicorn.Config(Api(engine, metrics).app(), log_level="warning"))
    Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/"
    picture = httpx.post(f"{url}images/generations", json={"prompt": PROMPTS[0], "seed": 0}, timeout=300).json()
    bodies = {"draw": [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(PROMPTS)]}
    bodies["chat"] = [_question(picture["data"][0]["b64_json"])]
    print(f"{args.model}, {machine()}, {args.requests} requests a row, or one a client\n")
    print("| | clients | requests/s | p50 s | p95 s | rows a batch |\n|---|---|---|---|---|---|")
    for kind, path in (("draw", "images/generations"), ("chat", "chat/completions")):
        for clients in args.clients:
            before = _batches(metrics, kind)
            started = time.perf_counter()
            seconds = asyncio.run(_ask(url + path, bodies[kind], max(args.requests, clients), clients))
            rate = len(seconds) / (time.perf_counter() - started)
            rows, batches = (after - was for after, was in zip(_batches(metrics, kind), before, strict=True))
            p50, p95 = (statistics.quantiles(seconds, n=20, method="inclusive")[i] for i in (9, 18))
            print(f"| {kind} | {clients} | {rate:.2f} | {p50:.2f} | {p95:.2f} | {rows / batches:.1f} |", flush=True)
    server.should_exit = True


async def _ask(url: str, bodies: list[dict], num: int, clients: int) -> list[float]:
    """Seconds of each of `num` requests."""
    waiting, seconds = list(range(num)), list[float]()
    async with httpx.AsyncClient(timeout=3600, limits=httpx.Limits(max_connections=clients)) as http:

        async def client() -> None:
            while waiting:
                body, started = bodies[waiting.pop() % len(bodies)], time.perf_counter()
                (await http.post(url, json=body)).raise_for_status()
                seconds.append(time.perf_counter() - started)

        await asyncio.gather(*(client() for _ in range(clients)))
    return seconds


def _batches(metrics: Metrics, kind: str) -> tuple[float, float]:
    """How many rows, and in how many batches."""
    names = ("dualtoken_batch_rows_sum", "dualtoken_batch_rows_count")
    rows, batches = (metrics.registry.get_sample_value(name, {"kind": kind}) or 0.0 for name in names)
    return rows, batches


def _question(encoded: str) -> dict:
    url = f"data:image/png;base64,{encoded}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is in the image?"}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 16}


if __name__ == "__main__":
    main()
