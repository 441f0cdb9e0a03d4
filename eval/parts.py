"""Measurements of a large set of pictures, in parts of so many pictures, made by any number of processes.

    parts/00000.safetensors    a tensor of n rows for each measure; in its header the pictures' metadata, a fingerprint

A part is whole or absent. Its pictures alone decide it, so neither the number of processes nor a kill changes what the
parts hold together; one that was made from anything else than this run's models and data is made again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Parts:
    """Parts 0 … of the pictures at places 0 … num_images − 1. Bad pictures leave their part shorter, or empty."""

    def __init__(self, folder: str | Path, fingerprint: str, num_images: int, size: int):
        self.folder, self.fingerprint, self.size, self.num_images = Path(folder), fingerprint, size, num_images
        self.numbers = range(-(-num_images // size))

    def missing(self) -> list[int]:
        return [number for number in self.numbers if not self._is_current(number)]

    def num_places(self, number: int) -> int:
        return min(self.size, self.num_images - number * self.size)

    def write(self, number: int, samples: list[dict[str, Any]], values: Mapping[str, Tensor]) -> None:
        """Beside, fsync, rename."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self._path(number).with_suffix(".partial")
        header = {"fingerprint": self.fingerprint, "samples": json.dumps(samples)}
        save_file({name: value.contiguous() for name, value in values.items()}, beside, metadata=header)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, self._path(number))

    def samples(self) -> list[dict[str, Any]]:
        """What `write` was given, of all parts in order."""
        headers = (self._header(number) for number in self.numbers)
        return [sample for header in headers for sample in json.loads(header["samples"])]

    def tensors(self, name: str) -> Iterator[Tensor]:
        """One measure, part after part, read as it is asked for."""
        for number in self.numbers:
            with safe_open(self._path(number), framework="pt") as file:
                if name in file.keys():  # noqa: SIM118  (not a mapping)
                    yield file.get_tensor(name)

    def joined(self, name: str) -> Tensor:
        return torch.cat(list(self.tensors(name)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _header(self, number: int) -> dict[str, str]:
        with safe_open(self._path(number), framework="pt") as file:
            return file.metadata() or {}

    def _is_current(self, number: int) -> bool:
        try:
            return self._header(number).get("fingerprint") == self.fingerprint
        except (OSError, SafetensorError):
            return False


def fingerprint(choices: Mapping[str, Any], paths: Iterable[str]) -> str:
    """A hash of choices and of files: of each path its name, and the size and time of the files directly under it.

    A path that does not exist is a name (a model on the hub).
    """
    stamps = []
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(file for file in path.glob("*") if file.is_file())
        stamps.append([str(path), *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)])
    return hashlib.sha256(json.dumps([dict(choices), stamps], sort_keys=True).encode()).hexdigest()[:16]
