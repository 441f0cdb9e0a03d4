"""Reading official benchmark files: what is wrong with one is said in a single sentence that names file and place."""

import csv
import io
import json
import sys
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; `\\r\\n` becomes `\\n`."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file is needed here")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: check the path")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): convert it, or take the original file") from None


def read_json(path: str | Path, unique_keys: bool = False) -> Any:
    """`unique_keys`: where the keys of objects are ids, of which JSON would silently keep the last."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except _RepeatedKey as error:
        raise ValueError(f"{path} holds {error} twice: remove the duplicate") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not complete JSON (line {error.lineno}, column {error.colno}: {error.msg}): "
            "it may be cut short or be another kind of file"
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep, or a number of thousands of digits
        raise ValueError(f"{path} cannot be read as JSON ({error}): it is another kind of file") from None


class _RepeatedKey(Exception): ...


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise _RepeatedKey(repr(key))
        table[key] = value
    return table


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """One JSON object a line; empty lines are passed over."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} line {number} is not complete JSON ({error.msg}): the file may be cut short"
            ) from None
        except (RecursionError, ValueError) as error:
            raise ValueError(
                f"{path} line {number} cannot be read as JSON ({error}): it is another kind of file"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} is not a JSON object: one object a line is expected")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a .tsv, .csv or .xlsx file under its header; every cell is text, an empty one is ''."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        cells = _read_xlsx(path)
    elif suffix in (".tsv", ".csv"):
        csv.field_size_limit(sys.maxsize)  # a cell may hold a whole image in base64
        lines = io.StringIO(read_text(path), newline="")
        try:
            cells = list(csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
        except csv.Error as error:
            raise ValueError(f"{path} is not a valid {suffix} table ({error}): it may be cut short") from None
    else:
        raise ValueError(f"{path} is not a table that can be read: give a .tsv, .csv or .xlsx file")
    cells = [row for row in cells if any(row)]
    if len(cells) < 2:
        raise ValueError(f"{path} holds no rows under its header")
    header = cells[0]
    for number, row in enumerate(cells[1:], start=1):
        if len(row) != len(header):
            raise ValueError(f"{path} row {number} has {len(row)} cells, its header {len(header)}: it may be cut short")
    return [dict(zip(header, row, strict=True)) for row in cells[1:]]


def _read_xlsx(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: check the path")
    try:
        import openpyxl
    except ImportError:
        raise ValueError(
            f"reading {path} needs the package openpyxl: pip install openpyxl, or save it as .tsv"
        ) from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        return [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # openpyxl raises a dozen kinds, from zipfile's to xml's
        raise ValueError(f"{path} is not a readable .xlsx workbook ({error})") from None


def write_json(path: str | Path, value: Any) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")


def by_id(rows: Iterable[Any], key: str, path: object) -> dict[Any, dict[str, Any]]:
    """Rows by their id, each of which must be there once."""
    table: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get(key), Hashable) or row.get(key) is None:
            raise ValueError(f"{path} entry {number} has no {key!r}: this is not the expected format")
        if row[key] in table:
            raise ValueError(f"{path} holds {key} {row[key]!r} twice: remove the duplicate")
        table[row[key]] = row
    return table


def require_same_ids(expected: Iterable[Any], given: Iterable[Any], expected_name: object, given_name: object) -> None:
    """Raises ValueError unless both hold the same ids; the names, usually paths, say whose they are."""
    expected, given = set(expected), set(given)
    for ids, where, elsewhere in (
        (expected - given, given_name, expected_name),
        (given - expected, expected_name, given_name),
    ):
        if ids:
            example = min(ids, key=str)
            raise ValueError(
                f"{where} lacks {len(ids)} of the ids of {elsewhere} ({example!r} for one): both must be complete, "
                "and of the same benchmark version and split"
            )
