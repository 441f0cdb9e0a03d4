"""Pictures in the rows of a table: parquet files, and whatever `datasets` opens, on this machine or on the hub.

    FOLDER/*.parquet                                             each file is a shard
    datasets:ID_OR_FOLDER?split=train&config=en&caption=title    streamed; its own files are what ranks share

`image`, `caption` and `key` name columns; without them they are the column of pictures, the first of CAPTION_COLUMNS,
and the first of KEY_COLUMNS or else the row's number. Other columns of text, numbers and lists of these are metadata.
Pictures are passed on encoded, so that skipping a row costs nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from data.decode import IMAGE_ENDINGS
from data.raw_sample import File, RawPart
from data.read_tar import Damaged
from data.shard_names import DATASETS, split_part

IMAGE_COLUMNS = ("image", *IMAGE_ENDINGS)
CAPTION_COLUMNS = ("caption", "text", "txt", "captions")
KEY_COLUMNS = ("__key__", "key", "id")
COLUMN_OPTIONS = ("image", "caption", "key")
OPTIONS = ("split", "config", *COLUMN_OPTIONS)
Row = Mapping[str, Any]


def read_parquet(shard: str, is_damaged: Damaged) -> Iterator[RawPart]:
    """The rows of one file, a few at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    stem = Path(shard).stem
    try:
        with ParquetFile(shard) as file:
            rows = (batch.slice(i, 1) for batch in file.iter_batches(batch_size=64) for i in range(len(batch)))
            for number, row in enumerate(rows):
                make = partial(_part, row, {}, shard, f"{stem}-{number:06d}", None)
                yield from _made(make, number, is_damaged)
    except (pa.ArrowException, OSError) as error:
        is_damaged(f"{type(error).__name__}: {error}")


def read_dataset(shard: str, is_damaged: Damaged) -> Iterator[RawPart]:
    """The rows of one file of a data set, or of all, one after the other: the number of a row is that in its file."""
    name, part = split_part(shard)
    path, options = _parse(name)
    rows = _open(name)
    if part.num > 1:
        rows = rows.shard(part.num, part.place)
    elif rows.num_shards > 1:
        for own in dataset_parts(name):
            yield from read_dataset(own, is_damaged)
        return
    folder = Path(path).resolve() if Path(path).is_dir() else None
    try:
        for number, row in enumerate(rows):
            make = partial(_part, row, options, shard, f"{part.place:05d}-{number:06d}", folder)
            yield from _made(make, number, is_damaged)
    except Exception as error:  # readers of any format raise anything on broken files
        is_damaged(f"{type(error).__name__}: {error}")


def _made(make: Callable[[], RawPart], number: int, is_damaged: Damaged) -> Iterator[RawPart]:
    """What is made of a row; a bad one must not hide the others."""
    try:
        part = make()
    except Exception as error:  # text that is no UTF-8, a picture that the hub no longer has, …
        is_damaged(f"row {number}: {type(error).__name__}: {error}")
        return
    yield part


def dataset_parts(shard: str) -> list[str]:
    """A name for each of its files; of one that is a part already, its own."""
    name, part = split_part(shard)
    num = 1 if part.num > 1 else _open(name).num_shards
    return [shard] if num <= 1 else [f"{name}#{index}/{num}" for index in range(num)]


def _parse(name: str) -> tuple[str, dict[str, str]]:
    path, _, query = name.removeprefix(DATASETS).partition("?")
    options = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise ValueError(f"{name} has the option {unknown[0]!r}; a data set takes {', '.join(OPTIONS)}")
    return path, options


@lru_cache(maxsize=4)
def _open(name: str) -> Any:
    """An IterableDataset whose pictures stay encoded."""
    import datasets

    path, options = _parse(name)
    try:
        if (stored := _saved(path, options.get("split"))) is not None:
            rows = stored.to_iterable_dataset(num_shards=max(len(stored.cache_files), 1))
        else:
            split = options.get("split", "train")
            rows = datasets.load_dataset(path, options.get("config"), split=split, streaming=True)
    except Exception as error:  # of the network, the hub, the format
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the data set {name} cannot be opened ({type(error).__name__}: {reason})") from error
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    if asked := [options[of] for of in COLUMN_OPTIONS if of in options]:
        columns = list(rows.features or next(iter(rows), asked))
        if missing := [column for column in asked if column not in columns]:
            raise ValueError(f"{name} has no column {missing[0]!r}; there are {', '.join(columns)}")
    return rows


def _saved(path: str, split: str | None) -> Any:
    """The Dataset in a folder that `save_to_disk` wrote, alone or with other splits; None if it did not write it."""
    import datasets

    if Path(path, "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(path)
    elif Path(path, "state.json").is_file():
        stored = datasets.load_from_disk(path)
        splits = {str(stored.split or "train"): stored}
        split = split or next(iter(splits))
    else:
        return None
    if (split := split or "train") not in splits:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(splits)}")
    return splits[split]


def _part(row: Any, options: Mapping[str, str], shard: str, number: str, folder: Path | None) -> RawPart:
    """The sample of a row: a dictionary, or a batch of Arrow of length 1."""
    row = row if isinstance(row, Mapping) else row.to_pylist()[0]
    key, caption = _column(row, options.get("key"), KEY_COLUMNS), _column(row, options.get("caption"), CAPTION_COLUMNS)
    image = _column(row, options.get("image"), IMAGE_COLUMNS) or next((c for c in row if _is_image(row[c])), None)
    metadata = {column: value for column, value in row.items() if column not in (image, key) and _is_plain(value)}
    if isinstance(nested := row.get("json"), dict):  # a webdataset that `datasets` opened
        metadata |= {column: value for column, value in nested.items() if _is_plain(value)}
    if caption is not None and caption != "captions":
        value = metadata.pop(caption, None)
        if isinstance(value, list):
            metadata["captions"] = value
            value = next((text for text in value if text is not None), None)
        metadata["caption"] = value
    files = {} if image is None else _files(row[image], folder)
    name = number if key is None or row[key] is None else str(row[key])
    return RawPart(name, shard, files, needs_caption=False, metadata=metadata)


def _column(row: Row, asked: str | None, usual: tuple[str, ...]) -> str | None:
    if asked is not None:
        if asked not in row:
            raise ValueError(f"there is no column {asked!r}; there are {', '.join(row)}")
        return asked
    return next((column for column in usual if column in row), None)


def _is_image(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and value.keys() == {"bytes", "path"})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return not _is_image(value) and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float | bool)


def _files(value: Any, folder: Path | None) -> dict[str, File]:
    """The encoded picture of a cell. A path is followed below the data set's own folder alone, or on the hub."""
    if isinstance(value, bytes):
        value = {"bytes": value}
    cell = value if isinstance(value, dict) else {}
    content, path = cell.get("bytes"), cell.get("path")
    if content is not None:
        return {"png": content}  # any ending of a picture: what it is, its first bytes say
    if path and folder is not None and folder in Path(path).resolve().parents:
        return {"png": Path(path)}
    if path and path.startswith("hf://"):
        import fsspec

        with fsspec.open(path, "rb") as file:
            return {"png": file.read()}
    return {}
