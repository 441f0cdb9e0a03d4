"""Folders of pictures, with a table that describes them or without.

With `metadata.jsonl` or `metadata.csv` in it (the imagefolder layout), a folder holds what its table lists, in that
order: `file_name` is the picture, below the folder; `caption`, or `text`, its caption; other columns are its metadata.
Without a table it holds all pictures below it, sorted by name, with `NAME.txt` and `NAME.json` beside `NAME.jpg`.
"""

import csv
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from data.decode import IMAGE_ENDINGS
from data.raw_sample import RawPart
from data.read_tar import Damaged
from data.shard_names import split_part

TABLES = ("metadata.jsonl", "metadata.csv")


def read_folder(shard: str, is_damaged: Damaged) -> Iterator[RawPart]:
    """The samples of a folder or of a part of it."""
    name, part = split_part(shard)
    folder = Path(name)
    table = next((folder / table for table in TABLES if (folder / table).is_file()), None)
    if table is None:
        paths = _pictures(folder)
        for place in part.range(len(paths)):
            yield _untabled(folder, paths[place], shard)
        return
    lines = part.range(count_pictures(name)) if part.num > 1 else range(0, 1 << 62)
    for row in islice(_rows(table), lines.start, lines.stop):
        if (sample := _tabled(folder, row, shard, table, is_damaged)) is not None:
            yield sample


def count_pictures(folder: str) -> int:
    table = next((path for path in (Path(folder, table) for table in TABLES) if path.is_file()), None)
    return len(_pictures(Path(folder))) if table is None else sum(1 for _ in _rows(table))


def folder_parts(folder: str, size: int) -> list[str]:
    """The folder's name, or names of its parts if it holds more than `size` pictures."""
    num = -(-count_pictures(folder) // size)
    return [folder] if num <= 1 else [f"{folder}#{index}/{num}" for index in range(num)]


def _pictures(folder: Path) -> list[Path]:
    below = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in below if path.suffix[1:].lower() in IMAGE_ENDINGS)


def _untabled(folder: Path, path: Path, shard: str) -> RawPart:
    beside = {kind: path.with_suffix(f".{kind}") for kind in ("txt", "json")}
    files = {kind: file for kind, file in beside.items() if file.is_file()}
    key = path.relative_to(folder).with_suffix("").as_posix()
    return RawPart(key, shard, {path.suffix[1:].lower(): path, **files}, needs_caption=False)


def _rows(table: Path) -> Iterator[dict[str, Any] | str]:
    """The rows in order; of one that cannot be read, text that says so, for one bad row must not hide the others.

    Bytes that are no UTF-8 become lone surrogates, which `_tabled` refuses; a byte order mark is no part of a name.
    """
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if table.suffix == ".csv":
            yield from _csv_rows(csv.DictReader(file))
            return
        for line in filter(str.strip, file):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else f"a line is no JSON object: {line.strip()[:60]!r}"


def _csv_rows(reader: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any] | str]:
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:  # such as a quote that never ends
            yield str(error)
            continue
        if row is None:
            return
        yield row


def _tabled(folder: Path, row: dict[str, Any] | str, shard: str, table: Path, is_damaged: Damaged) -> RawPart | None:
    if isinstance(row, str):
        is_damaged(f"{table}: {row}")
        return None
    name = row.get("file_name")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        is_damaged(f"the row of {name!r} in {table} is no UTF-8")
        return None
    path = PurePosixPath(str(name or ""))
    if not name or path.is_absolute() or ".." in path.parts:
        is_damaged(f"a row of {table} has file_name {name!r}, which is no file below the folder")
        return None
    metadata = {str(column): value for column, value in row.items() if column not in ("file_name", None)}
    if "caption" not in metadata and isinstance(metadata.get("text"), str):
        metadata["caption"] = metadata.pop("text")
    file = folder / path
    return RawPart(
        str(path.with_suffix("")), shard, {path.suffix[1:].lower(): file}, needs_caption=False, metadata=metadata
    )
