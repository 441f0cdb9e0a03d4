"""Reading features from .npz files: what is wrong with one is said in a single sentence that names file and array."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def read_arrays(path: str | Path, **dimensions: int) -> dict[str, np.ndarray]:
    """The named arrays of an .npz, each of which must have so many dimensions and be finite numbers, not empty.

    Raises FileNotFoundError or ValueError.
    """
    arrays = _load(path, dimensions)
    for name, array in arrays.items():
        _check(name, array, dimensions[name], path)
    return arrays


def read_text_array(path: str | Path, name: str) -> np.ndarray | None:
    """An array of strings of any shape, or None where the file has none of this name."""
    array = _load(path, [name], optional=True).get(name)
    if array is not None and array.dtype.kind not in "US":
        raise ValueError(f"{path}: {name!r} must hold text, not {array.dtype}")
    return None if array is None else array.astype(str)


def _load(path: str | Path, names: Iterable[str], optional: bool = False) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: give an .npz file of features")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [] if optional else [name for name in names if name not in file.files]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}, but {', '.join(file.files) or 'none'}")
            return {name: file[name] for name in names if name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a whole .npz file ({' '.join(str(error).split())}): make it again") from None
    except ValueError as error:
        raise ValueError(f"{path} is not of the expected format: {error}") from None


def require_indices(array: np.ndarray, size: int, name: str, path: object) -> np.ndarray:
    """`array` as int64, in which an index may also be −1. Raises ValueError unless it is whole numbers in [0, size)."""
    if array.dtype.kind not in "iu":
        raise ValueError(f"{path}: {name!r} must hold whole numbers, not {array.dtype}")
    if array.min() < 0 or array.max() >= size:
        raise ValueError(f"{path}: {name!r} holds {array.min()} … {array.max()}, where 0 … {size - 1} are possible")
    return array.astype(np.int64)


def require_same_length(path: object, **arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: {' and '.join(f'{n} {name}' for name, n in lengths.items())} do not fit together")


def require_same_width(path: object, **arrays: np.ndarray) -> None:
    widths = {name: array.shape[-1] for name, array in arrays.items()}
    if len(set(widths.values())) > 1:
        dimensions = " and ".join(f"{width} of {name}" for name, width in widths.items())
        raise ValueError(f"{path}: features of different models cannot be compared ({dimensions} dimensions)")


def require_directions(path: object, **arrays: np.ndarray) -> None:
    """Raises ValueError where a feature is zero: it has no direction, and no similarity to anything."""
    for name, array in arrays.items():
        if not np.abs(array).max(axis=-1).all():
            raise ValueError(f"{path}: {name!r} holds a feature that is zero throughout: a picture or text was lost")


def _check(name: str, array: np.ndarray, dimensions: int, path: object) -> None:
    if array.ndim != dimensions or not array.size:
        raise ValueError(
            f"{path}: {name!r} has the shape {array.shape}, where {dimensions} dimensions are expected, none empty"
        )
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name!r} holds {array.dtype}, not numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {name!r} holds NaN or infinity: the model that made it is broken")
