"""Folders of pictures: which files they hold, which belong together, and how one is added. No torch."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from data.decode import IMAGE_ENDINGS


def pictures_in(folder: str | Path) -> list[Path]:
    """All pictures in any depth, sorted. Raises FileNotFoundError or ValueError without any."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give one that holds pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in IMAGE_ENDINGS and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no pictures ({', '.join(IMAGE_ENDINGS)})")
    return paths


def pairs(reference: str | Path, images: str | Path) -> list[tuple[str, Path, Path]]:
    """(name, reference, image) of the pictures with the same name below both folders, whatever their suffix.

    Raises ValueError where one has no partner, or a folder two of one name.
    """
    sides = [_by_name(folder) for folder in (reference, images)]
    for have, lack, folder in ((sides[0], sides[1], images), (sides[1], sides[0], reference)):
        if unpaired := sorted(have.keys() - lack.keys()):
            raise ValueError(
                f"{folder} lacks {len(unpaired)} of the pictures of the other folder ({unpaired[0]!r} for one): "
                "both must hold the same names"
            )
    return [(name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]


def size_name(picture: np.ndarray) -> str:
    """uint8[h, w, 3] → `w×h`, as the scorers' `sizes` have it."""
    return f"{picture.shape[1]}×{picture.shape[0]}"


def save_whole(image: Image.Image, path: Path) -> None:
    """As PNG. Written beside, fsynced and renamed: what a kill has cut never looks like a picture, to whomever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")  # GenEval's evaluator takes 0000.png.anything for one
    with beside.open("wb") as file:
        image.save(file, "PNG")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _by_name(folder: str | Path) -> dict[str, Path]:
    paths = pictures_in(folder)
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{folder} holds the picture {repeated[0]!r} with two suffixes: remove one")
    return dict(zip(names, paths, strict=True))
