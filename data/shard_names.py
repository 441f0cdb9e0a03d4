"""The names of raw data: files, folders, globs, brace ranges, pipes, data sets of `datasets`, and lists of these.

    photos/{000000..000123}.tar     webdataset tars, compressed or not        photos/*.parquet   rows with an image each
    photos                          a folder of tars, or of pictures          datasets:ID?split=train
    pipe:ssh store cat {0..9}.tar   what a command prints, as a tar

A name that is read is called a shard. It may end in `#i/n`, the i-th of n equal parts of a folder or data set.
A `pipe:` runs its command in a shell. It is obeyed where a user wrote it, in a config or on the command line, and
nowhere else: names that are found by a glob never are commands.
"""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PIPE, DATASETS = "pipe:", "datasets:"
Spec = str | Path | Sequence[str | Path]
_TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_PART = re.compile(r"(?P<name>.+)#(?P<index>\d+)/(?P<num>\d+)", re.DOTALL)


class Part(NamedTuple):
    """The i-th of n contiguous parts of a shard; (0, 1) is the whole."""

    place: int
    num: int

    def range(self, length: int) -> range:
        return range(self.place * length // self.num, (self.place + 1) * length // self.num)


def split_part(shard: str) -> tuple[str, Part]:
    """`photos#2/5` → `photos`, (2, 5); a file whose own name looks like that is a file."""
    found = None if os.path.exists(shard) else _PART.fullmatch(shard)
    if found is None:
        return shard, Part(0, 1)
    return found["name"], Part(int(found["index"]), int(found["num"]))


def expand_shards(spec: Spec) -> list[str]:
    """The shards named by a path, a glob, a brace range `x-{000000..000009}.tar`, a pipe, or several of these.

    Several are a list, or one string with commas between them (in which a pipe cannot stand, as a command may hold
    commas). A folder that holds tars stands for these, one that holds parquet files for these; any other is one shard.
    """
    if not isinstance(spec, str | Path):
        return [shard for part in spec for shard in expand_shards(part)]
    text = str(spec)
    if text.startswith((PIPE, DATASETS)):
        return _expand_braces(text)
    if os.path.exists(text):  # not Path.exists, which raises an OSError on a list that is too long for a name
        return _inside(Path(text))
    if os.path.exists(split_part(text)[0]):
        return [text]
    parts = re.split(r",(?![^{]*})", text)  # commas outside of braces
    if len(parts) > 1:
        return [shard for part in parts for shard in expand_shards(part.strip())]
    paths = [path for pattern in _expand_braces(text) for path in _expand_glob(pattern)]
    return [shard for path in paths for shard in _inside(Path(path))]


def check_spec(spec: Any, key: str) -> None:
    """For configs, whose YAML may hold anything: ValueError unless `spec` is a string or a list of strings."""
    is_list = isinstance(spec, list) and bool(spec) and all(isinstance(part, str) for part in spec)
    if not is_list and not (isinstance(spec, str) and spec.strip()):
        raise ValueError(f"{key} must be the name of shards or a list of such names, not {spec!r}")


def modified(shard: str) -> float:
    """When a shard last changed, in seconds; of a folder, when it or anything below it did, so that a picture that was
    written anew is noticed. 0 for what is not on this machine, which never counts as changed."""
    name, _ = split_part(shard)
    path = name.removeprefix(DATASETS).partition("?")[0] if name.startswith(DATASETS) else name
    if name.startswith(PIPE) or (path != name and not os.path.isdir(path)):
        return 0.0
    below = (os.path.join(parent, file) for parent, folders, files in os.walk(path) for file in folders + files)
    times = (os.stat(file).st_mtime for file in below if os.path.exists(file))  # a link may lead nowhere
    return max(os.stat(path).st_mtime, max(times, default=0.0))


def _inside(path: Path) -> list[str]:
    """The shards in a folder, or the path itself; one that looks like an address is written as a path.

    Beside tars nothing else counts, nor does a parquet file beside a folder of its name: such ones are lists of what
    img2dataset downloaded.
    """
    files = sorted(path.iterdir()) if path.is_dir() else []
    tables = (file for file in files if file.suffix == ".parquet" and not file.with_suffix("").is_dir())
    found = [file for file in files if file.name.endswith(_TARS)] or list(tables) or [path]
    return [f"./{name}" if name.startswith((PIPE, DATASETS)) else name for name in map(str, found)]


def _expand_braces(pattern: str) -> list[str]:
    from braceexpand import braceexpand

    try:
        return list(braceexpand(pattern, escape=not pattern.startswith(PIPE)))
    except ValueError as error:
        raise ValueError(f"the shard pattern {pattern} has unbalanced braces") from error


def _expand_glob(pattern: str) -> list[str]:
    found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise FileNotFoundError(f"no shard or folder matches {pattern}")
    return found
