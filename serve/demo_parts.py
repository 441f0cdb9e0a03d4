"""What the tabs share: waiting for the engine, errors as one sentence, pictures in and out."""

import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from data.images import load_image
from data.shards import select_samples
from serve.batcher import Done, Job, QueueFull
from serve.engine import Engine

SHOWN = 256
"""Pixels across of pictures on the page."""
NUM_EXAMPLES = 8


def mistake(text: str) -> gr.Error:
    """One sentence for the visitor; it is not worth a traceback."""
    return gr.Error(text, print_exception=False)


def results(submit: Callable[[Any, Callable[[Any], None], float], Job], request: Any, seconds: float) -> Iterator[Any]:
    """What a job emits, `Done` last; the job ends where its visitor stops reading."""
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    deadline = time.monotonic() + seconds
    try:
        job = submit(request, received.put, deadline)
    except QueueFull as error:
        raise mistake("Many others are waiting: try again in a moment.") from error
    try:
        while True:
            result = received.get(timeout=max(deadline - time.monotonic(), 0))
            if isinstance(result, Exception):
                says = str(result) if isinstance(result, ValueError) else "The model failed; the terminal says why."
                raise mistake(says) from result
            yield result
            if isinstance(result, Done):
                return
    except queue.Empty as error:
        raise mistake(f"This took longer than {seconds:g} seconds.") from error
    finally:
        job.abandoned = True


def read(path: str, engine: Engine) -> Image.Image:
    """An uploaded file as an RGB picture."""
    try:
        return load_image(Path(path), engine.limits.pixels)
    except (ValueError, OSError) as error:
        raise mistake(str(error).replace(path, Path(path).name)) from error


def enlarged(image: Image.Image) -> Image.Image:
    """Small pictures as large as they are shown, so that browsers need not guess how."""
    height = SHOWN * image.height // image.width
    return image if image.width >= SHOWN else image.resize((SHOWN, height), Image.Resampling.BICUBIC)


def example_pictures(shard: str) -> list[str]:
    """Files of some of a shard's pictures; none where the shard is not at hand."""
    if not Path(shard).is_file():
        return []
    folder = Path(tempfile.mkdtemp(prefix="dualtoken-examples-"))
    paths = []
    for place, sample in select_samples(shard, lambda place: place % 50 == 7):
        paths.append(folder / f"{place}.png")
        sample.image.save(paths[-1])
    return [str(path) for path in paths[:NUM_EXAMPLES]]
