"""What was found by reading a whole file, kept beside it, so that another start does not read it again."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)


def kept_array(beside: Path, of: Path, make: Callable[[], np.ndarray], is_kept: bool) -> np.ndarray:
    """int64[n]: from the file `beside` if that was made for the file `of` as it is, else made, and kept if asked."""
    facts = of.stat()
    stamp = [facts.st_size, facts.st_mtime_ns]
    if beside.is_file():
        values = np.load(beside, mmap_mode="r")
        if values[:2].tolist() == stamp:
            return values[2:]
    values = np.concatenate([np.array(stamp), make()])
    if is_kept:
        partial = beside.with_name(f"{beside.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as stream:
                np.save(stream, values)
            os.replace(partial, beside)  # whole or absent, whichever of many processes is the last
        except OSError as error:
            logger.info("%s is not kept: %s", beside, error)
    return values[2:]
