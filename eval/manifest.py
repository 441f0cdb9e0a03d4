"""What was measured with what: versions of packages, hashes of models and of question files.

A hash of several files covers their names and their contents, so that a folder may stand anywhere.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("dualtoken", "torch", "torchvision", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
_BLOCK = 1 << 20


def versions() -> dict[str, str]:
    """Python and the packages on which answers and pictures depend."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def hash_names_and_sizes(paths: Iterable[Path]) -> str:
    """Of files too many to read: SHA-256 over the names and sizes, in the order of the names; −1 is a missing one."""
    rows = sorted((path.name, path.stat().st_size if path.is_file() else -1) for path in paths)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 over the files in the order of their names relative to `root`."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        inner = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                inner.update(block)
        digest.update(f"{path.relative_to(root).as_posix()}\0{inner.hexdigest()}\n".encode())
    return digest.hexdigest()


def fingerprint(made_from: Mapping[str, Any]) -> str:
    """A short name for what decides answers or pictures."""
    return hashlib.sha256(json.dumps(dict(made_from), sort_keys=True).encode()).hexdigest()[:16]


def hash_model(name: str | Path) -> str:
    """Of everything in the folder or repository of a unified model: weights, configuration, vocabulary, tokenizer."""
    from tokenizer.hub import local_folder  # here, for it brings torch

    folder = local_folder(name)
    return hash_files([path for path in folder.rglob("*") if path.is_file()], folder)
