"""A folder that is never half written, such as export/: filled beside its place, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Inside, an empty folder to fill, which takes the place of `folder` at the end. A full disk is an OSError."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk has room again
        if isinstance(error, OSError) and error.errno is None:  # a sentence already
            raise
        raise OSError(
            f"could not write {folder}: {error}; it is as it was: make room, and give the same command again"
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
