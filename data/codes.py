"""Pre-tokenized images: both branches' codes of every image, its captions and where they come from.

A store is a folder in the format of `datasets.load_from_disk` (Arrow, memory mapped, uint16: 23 kB for 729 positions ×
8 depths × 2 branches) and a `provenance.json`, which names the tokenizer that made the codes. Rows are read by index
without copying, so that an epoch is a permutation of indices and resuming is exact.
"""

import bisect
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from data.code_counts import BRANCHES, COUNTS, CodeCounts
from data.key_index import KeyIndex

CONVERSATIONS = "conversations.jsonl"  # of the rows that have some, as LLaVA-1.5 records whose image is the row's key
PROVENANCE = "provenance.json"
PROVENANCE_KEYS = ("tokenizer_id", "transform", "num_patches", "grid", "depth", "codebook_size", "source")


def _check_codes(codes: np.ndarray, provenance: Mapping[str, Any], what: str) -> None:
    shape = (provenance["num_patches"], provenance["depth"])
    if codes.shape != shape:
        raise ValueError(f"{what} have shape {codes.shape}, where [positions, depth] is {shape}: tokenize them again")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"{what} are {codes.dtype}, not integers")
    if codes.size and (codes.min() < 0 or codes.max() >= provenance["codebook_size"]):
        raise ValueError(
            f"{what} run from {codes.min()} to {codes.max()}, outside the codebook of {provenance['codebook_size']} "
            "entries: tokenize them again"
        )


class CodeStore:
    """Random access to the codes of a data set."""

    def __init__(self, path: Path, batches: list[pa.RecordBatch], provenance: dict[str, Any]):
        self.path = path
        self.provenance = provenance
        self._batches = batches
        self._starts = np.cumsum([0, *(len(batch) for batch in batches)]).tolist()

    @classmethod
    def open(cls, path: str | Path, tokenizer_id: str | None = None) -> "CodeStore":
        """Open a store; with a `tokenizer_id`, refuse the codes of another tokenizer."""
        path = Path(path)
        if not (path / PROVENANCE).is_file():
            raise FileNotFoundError(f"no code store at {str(path)!r}: make one with `dualtoken pretokenize`")
        try:
            provenance = json.loads((path / PROVENANCE).read_text())
            if missing := [key for key in PROVENANCE_KEYS if key not in provenance]:
                raise ValueError(f"its {PROVENANCE} lacks {', '.join(missing)}")
            table = datasets.load_from_disk(str(path), keep_in_memory=False).data
        except (OSError, ValueError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"the code store {str(path)!r} is damaged ({error}): tokenize the images again") from error
        if tokenizer_id is not None and provenance["tokenizer_id"] != tokenizer_id:
            raise ValueError(
                f"the codes in {str(path)!r} come from tokenizer {provenance['tokenizer_id']}, not from "
                f"{tokenizer_id}: pretokenize the images with the tokenizer in use"
            )
        return cls(path, table.to_batches(), provenance)

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.provenance["grid"]
        return height, width

    @property
    def num_patches(self) -> int:
        return self.provenance["num_patches"]

    @property
    def depth(self) -> int:
        return self.provenance["depth"]

    def __len__(self) -> int:
        return self._starts[-1]

    def _value(self, column: str, index: int) -> pa.Array:
        """A column of one row, as an array of length 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of the {len(self)} rows of {self.path}")
        batch = bisect.bisect_right(self._starts, index) - 1
        return self._batches[batch].column(column).slice(index - self._starts[batch], 1)

    def key(self, index: int) -> str:
        return self._value("key", index)[0].as_py()

    def captions(self, index: int) -> list[str]:
        return self._value("captions", index)[0].as_py()

    def metadata(self, index: int) -> dict[str, Any]:
        return json.loads(self._value("metadata", index)[0].as_py())

    def codes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixel and semantic codes, uint16[N, D] each, read-only views of the file."""
        branches = []
        for name in BRANCHES:
            codes = self._value(name, index).flatten().to_numpy(zero_copy_only=True)
            if codes.size == self.num_patches * self.depth:  # another size is named by the check
                codes = codes.reshape(self.num_patches, -1)
            _check_codes(codes, self.provenance, f"the {name} codes of {self.key(index)!r} in {str(self.path)!r}")
            branches.append(codes)
        return branches[0], branches[1]

    def check(self, index: int) -> None:
        """Raises ValueError, naming the sample, if its codes are of no use."""
        self.codes(index)

    def codes_of(self, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.codes(index) for index in indices]

    @cached_property
    def _key_index(self) -> KeyIndex:
        index = KeyIndex(batch.column("key") for batch in self._batches)
        for rows in index.suspects():
            keys = [self.key(row) for row in rows]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise ValueError(
                    f"the key {twice[0]!r} occurs more than once in the code store {str(self.path)!r}: no conversation "
                    "or interleaved document can name its pictures; give each picture a key of its own"
                )
        return index

    def check_keys(self) -> None:
        """Raises ValueError if a key occurs more than once, so that rows cannot be found by their keys."""
        self._rows_of("")

    def _rows_of(self, key: str) -> list[int]:
        return [row for row in self._key_index.candidates(key) if self.key(row) == key]

    def __contains__(self, key: str) -> bool:
        return bool(self._rows_of(key))

    def index_of(self, key: str) -> int:
        """Raises KeyError for a key that no row has."""
        for row in self._rows_of(key):
            return row
        raise KeyError(key)


class CodeWriter:
    """Write a store beside its place and rename it there at the end, so that a store is whole or absent.

    with CodeWriter(path, provenance) as writer:
        writer.add(key, pixel, semantic, captions, metadata)
    """

    num_bad = 0
    """Samples of the source that could not be read, kept with the counts; set by whoever reads them."""

    def __init__(self, path: str | Path, provenance: Mapping[str, Any], may_be_empty: bool = False):
        self.path = Path(path)
        self.provenance, self.may_be_empty = dict(provenance), may_be_empty
        if missing := [key for key in PROVENANCE_KEYS if key not in self.provenance]:
            raise ValueError(f"the provenance of the codes for {str(path)!r} lacks {', '.join(missing)}")
        if self.provenance["codebook_size"] > 2**16:
            raise ValueError(f"codes of {self.provenance['codebook_size']} entries do not fit the store's 16 bits")
        refuse_foreign_folder(self.path)
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._counts = CodeCounts(self.provenance["depth"], self.provenance["codebook_size"])

    def __enter__(self) -> "CodeWriter":
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        codes = datasets.List(datasets.Value("uint16"), self.provenance["num_patches"] * self.provenance["depth"])
        text = datasets.Value("string")
        features = {"key": text, "pixel": codes, "semantic": codes, "captions": datasets.List(text), "metadata": text}
        self._writer = ArrowWriter(features=datasets.Features(features), path=str(self._partial / "rows.arrow"))
        return self

    def add(
        self,
        key: str,
        pixel: np.ndarray,
        semantic: np.ndarray,
        captions: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Codes are integers [N, D]: arrays, or tensors on the CPU."""
        row: dict[str, Any] = {"key": key, "captions": list(captions), "metadata": json.dumps(dict(metadata or {}))}
        for name, branch in (("pixel", pixel), ("semantic", semantic)):
            codes = np.asarray(branch)
            _check_codes(codes, self.provenance, f"the {name} codes of {key!r} for {str(self.path)!r}")
            row[name] = codes.astype(np.uint16).reshape(-1)
        self._writer.write(row)
        self._counts.add(np.asarray(pixel), np.asarray(semantic))
        if conversations := (metadata or {}).get("conversations"):
            with (self._partial / CONVERSATIONS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": key, "image": key, "conversations": conversations}) + "\n")

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._writer.close()
                return
            if not self._counts.num_images and not self.may_be_empty:
                raise ValueError(f"no sample was written to {str(self.path)!r}: the source has no usable image")
            self._writer.finalize()
            self._publish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _publish(self) -> None:
        folder = self._partial / "store"
        datasets.Dataset.from_file(str(self._partial / "rows.arrow")).save_to_disk(str(folder))
        (folder / PROVENANCE).write_text(json.dumps(self.provenance, indent=2))
        self._counts.num_bad = self.num_bad
        self._counts.save(folder / COUNTS)
        if (self._partial / CONVERSATIONS).exists():
            (self._partial / CONVERSATIONS).rename(folder / CONVERSATIONS)
        publish_store(folder, self.path)


def refuse_foreign_folder(path: Path) -> None:
    """A store may replace a store or an empty folder, and nothing else that a user may have there."""
    is_store = (path / PROVENANCE).is_file()
    is_empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_store and not is_empty:
        raise ValueError(f"{str(path)!r} exists and is no code store: choose another folder for the codes")


def publish_store(folder: Path, path: Path) -> None:
    """Flushes the files of a finished `folder` to the disk and renames it to `path`, in place of what was there."""
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    replaced = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    folder.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)
