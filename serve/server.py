"""`dualtoken serve`: the HTTP server's command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from serve.config import Limits
from serve.extras import require

if TYPE_CHECKING:
    from starlette.middleware import Middleware

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 serves other machines too (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    parser.add_argument("--name", default="dualtoken", help="what clients call the model (%(default)s)")
    parser.add_argument("--token-file", metavar="FILE", help="holds the token that clients must send (none)")
    parser.add_argument("--image-folder", metavar="DIR", help="where file: URLs of pictures may point (nowhere)")
    parser.add_argument("--batch", type=int, default=limits.batch_rows, metavar="N", help="rows at once (%(default)s)")
    parser.add_argument("--queue", type=int, default=limits.queue, metavar="N", help="requests that wait (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=limits.seconds, metavar="S", help="seconds for a request (%(default)g)"
    )


def run(args: Namespace) -> None:
    require("serve", "starlette", "uvicorn", "prometheus_client")
    import uvicorn

    from eval.load import load
    from serve.app import Api
    from serve.engine import Engine
    from serve.metrics import Metrics

    defaults = Limits()
    limits = Limits(
        batch_rows=args.batch, drawings=min(defaults.drawings, args.batch), queue=args.queue, seconds=args.timeout
    )
    token = _token(args.token_file)
    folder = Path(args.image_folder) if args.image_folder else None
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--image-folder {folder} is no folder")
    listening = listen(args.host, args.port)
    metrics = Metrics()
    engine = Engine(load(args.model), limits, metrics.observe_batch)
    app = Api(engine, metrics, args.name, token, folder).app(hosts_allowed(args.host))
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, limit_concurrency=limits.connections, timeout_keep_alive=5
    )
    print(f"{args.name} answers at http://{args.host}:{listening.getsockname()[1]}/v1; Ctrl-C ends it.", flush=True)
    if args.host not in LOOPBACK and token is None:
        print(f"Whoever reaches {args.host} may use it: --token-file FILE asks for a token.", flush=True)
    # Asked to end, it has ended well; uvicorn, once all answers are given, raises the signal again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listening])


def hosts_allowed(host: str) -> tuple[Middleware, ...]:
    """On loopback a page of another site could point a name of its own at this machine, and read the answers."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return (Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"]),) if host in LOOPBACK else ()


def listen(host: str, port: int) -> socket.socket:
    """Before the model is loaded, so that a port in use is known at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host}, port {port} ({error}): choose another --port or --host") from error


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    if not os.path.isfile(path):
        raise FileNotFoundError(f"--token-file {path} does not exist; write a long random word into it")
    token = Path(path).read_text().strip()
    if not token.isascii() or len(token) < 8:
        raise ValueError(f"the token in {path} must be at least 8 plain characters")
    return token
