"""Random access to the records of a file that need not fit into memory: `.jsonl`, `.txt` (a text a line) or `.json`.

Where each record stands is found once. For a large file the places are kept beside it, in `.NAME.index.npy`, so that
another start reads nothing but the records that it needs. A record that cannot be read, such as invalid UTF-8, is a
ValueError when it is asked for, not when the file is opened: one bad line does not cost a file.
"""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.kept_array import kept_array

CHUNK = 1 << 26  # bytes looked through at a time
KEPT_FROM = 1 << 26  # smaller files are looked through in no time, and get no file beside them
_BLANK = b" \t\r\n\v\f"


class Records:
    """`len(records)` dictionaries; `records[index]` reads one."""

    def __init__(self, path: str):
        self.path, file = path, Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no file {path!r}: give the path of the conversations, documents or texts")
        if file.suffix not in (".json", ".jsonl", ".txt"):
            raise ValueError(f"{path!r} ends in {file.suffix!r}: the formats are .jsonl, .json and .txt")
        self._is_text = file.suffix == ".txt"
        self._spans = _open_index(file)  # int64[num, 2], where each record begins and ends
        self._bytes: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises ValueError, naming the file and the record."""
        if self._bytes is None:
            with open(self.path, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start, end = self._spans[index].tolist()
        try:
            text = self._bytes[start:end].decode()
            record = {"text": text} if self._is_text else json.loads(text)
        except UnicodeDecodeError as error:
            raise ValueError(f"record {index} of {self.path!r} is not valid UTF-8: {error.reason}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"record {index} of {self.path!r} is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"record {index} of {self.path!r} is no JSON object")
        return record


def _open_index(file: Path) -> np.ndarray:
    """int64[num, 2], from beside the file if it was made for the file as it is."""
    find = _json_spans if file.suffix == ".json" else _line_spans
    beside, is_large = file.with_name(f".{file.name}.index.npy"), file.stat().st_size >= KEPT_FROM
    none = np.empty((0, 2), np.int64)  # of an empty file
    return kept_array(beside, file, lambda: np.concatenate([none, *find(file)]).ravel(), is_large).reshape(-1, 2)


def _line_spans(file: Path) -> Iterator[np.ndarray]:
    """The lines with something in them, chunk by chunk."""
    start = 0  # of the line that the next chunk continues
    with file.open("rb") as stream:
        offset = 0
        while chunk := stream.read(CHUNK):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset
            if len(ends):
                starts = np.concatenate([[start], ends[:-1] + 1])
                yield _without_blanks(stream, np.stack([starts, ends], 1))
                start = int(ends[-1]) + 1
            offset += len(chunk)
            stream.seek(offset)
        if start < offset:
            yield _without_blanks(stream, np.array([[start, offset]]))


def _without_blanks(stream: Any, spans: np.ndarray) -> np.ndarray:
    """Only lines that are short or begin with a blank are looked at; a carriage return at the end does not count."""
    keep = np.ones(len(spans), dtype=bool)
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        whole = np.frombuffer(content, np.uint8)
        starts, ends = spans.T
        suspects = (ends == starts) | np.isin(whole[np.minimum(starts, len(whole) - 1)], list(_BLANK))
        spans[:, 1] -= (ends > starts) & (whole[np.maximum(ends - 1, 0)] == ord("\r"))
        del whole
        for line in np.flatnonzero(suspects):
            keep[line] = bool(content[spans[line, 0] : spans[line, 1]].strip(_BLANK))
    return spans[keep]


def _json_spans(file: Path) -> Iterator[np.ndarray]:
    """The elements of a JSON list. Each is parsed and forgotten."""
    text = file.read_bytes().decode(errors="surrogateescape")  # a record that is not UTF-8 is found when it is read
    spans, decoder = [], json.JSONDecoder()
    try:
        place = _skip(text, 0)
        if text[place] != "[":
            raise _NoListError
        place, num_bytes, counted = _skip(text, place + 1), 0, 0
        while text[place] != "]":
            value, end = decoder.raw_decode(text, place)
            if not isinstance(value, dict):
                raise _NoListError
            num_bytes += _num_bytes(text[counted:place])
            start, num_bytes, counted = num_bytes, num_bytes + _num_bytes(text[place:end]), end
            spans.append((start, num_bytes))
            place = _skip(text, end)
            if text[place] == ",":
                place = _skip(text, place + 1)
            elif text[place] != "]":
                raise ValueError(f"no comma after record {len(spans) - 1}")
    except _NoListError:
        raise ValueError(f"{str(file)!r} is no list of records: see docs/training-data.md") from None
    except IndexError:
        raise ValueError(f"{str(file)!r} cannot be read as .json: it ends within its list of records") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as .json: {error}") from error
    yield np.array(spans, dtype=np.int64).reshape(-1, 2)


class _NoListError(Exception):
    pass


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\r\n\ufeff":
        place += 1
    return place


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))
