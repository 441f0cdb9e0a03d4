"""Several processes on this machine, as `torchrun --standalone` starts them, with one sentence where they fail.

torchrun alone answers a user's mistake with one traceback per process and its own on top. Here a process that meets a
mistake leaves the sentence in the file that torchrun gives it for that purpose, and the launcher raises it once.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torchrun in each process that it starts
USER_MISTAKE = 2  # the exit code that says: the sentence is in the error file
PEER_LOST = 3  # the exit code that says: another process ended, and it is the one to ask
PATIENCE = 10.0  # seconds that such a process waits, so that the one to ask has ended before torchrun ends all others
LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")  # as gloo and NCCL put it

Config = TypeVar("Config")


def is_launched() -> bool:
    """Whether torchrun started this process, ours or one typed by a user for many machines."""
    return ERROR_FILE in os.environ


def sentence(mistake: ValueError | OSError) -> str:
    """What the user is told of a mistake, on one line."""
    if isinstance(mistake, OSError) and mistake.filename is not None and mistake.strerror:  # "[Errno 20] …"
        return f"cannot use {mistake.filename}: {mistake.strerror[0].lower()}{mistake.strerror[1:]}"
    return " ".join(str(mistake).split()) or type(mistake).__name__


def leave_sentence(message: str) -> None:
    """In a launched process: what the launcher is to say, in the format of torch.distributed.elastic."""
    with open(os.environ[ERROR_FILE], "w") as file:
        json.dump({"message": message, "timestamp": int(time.time())}, file)


def launch(module: str, arguments: list[str], num_processes: int) -> None:
    """Runs `python -m module arguments…` in `num_processes` processes until all are done.

    Raises ValueError with the sentence of the first that met a user's mistake, SystemExit after any other failure,
    whose traceback stands above.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as torchrun

    if num_processes < 1:
        raise ValueError(f"--nproc {num_processes}: at least one process is needed")
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    try:
        torchrun(parse_args(["--standalone", "--nproc_per_node", str(num_processes), "-m", module, *arguments]))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda f: (f[1].exitcode == PEER_LOST, f[1].timestamp))
        if failure.exitcode == USER_MISTAKE:
            raise ValueError(failure.message) from None
        raise SystemExit(f"dualtoken: error: process {rank} of {num_processes} {_end(failure.exitcode)}") from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None


def _end(exit_code: int) -> str:
    if exit_code > 0:
        return f"ended with exit code {exit_code}, see above"
    name = signal.Signals(-exit_code).name
    return f"was ended by {name}{', as where memory runs out' if name == 'SIGKILL' else ''}; the others were stopped"


def run_launched(config_class: type[Config], main: Callable[[Config], None]) -> None:
    """The `__main__` of a module that `launch` or torchrun starts: CONFIG key=value…, and `main` of what they say."""
    from train.config import load_config
    from train.distributed import leave_world

    arguments = sys.argv[1:]
    try:
        if not arguments:
            raise ValueError("give a config, one of those under configs/, and key=value for what to replace in it")
        main(load_config(config_class, arguments[0], arguments[1:]))
    except (ValueError, OSError) as mistake:
        if is_launched():
            leave_sentence(sentence(mistake))
        elif os.environ.get("RANK", "0") == "0":
            print(f"error: {sentence(mistake)}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    except RuntimeError as error:
        if is_launched() and any(words in str(error) for words in LOST):
            time.sleep(PATIENCE)
            sys.exit(PEER_LOST)
        raise
    finally:
        leave_world()
