"""Picture files as they are, tokenized when a batch needs them: for a data set that is looked at once or twice.

Reading codes from a store costs microseconds and the tokenizer milliseconds, so what is read in many epochs should go
through `dualtoken pretokenize`. The codes of the first pictures are kept in memory, up to `CACHE_BYTES`: an epoch is a
permutation, for which a cache that drops its oldest entries would hardly ever hit.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image

from data.images import MAX_PIXELS, load_image

logger = logging.getLogger(__name__)

CACHE_BYTES = 1 << 29
CodePair = tuple[np.ndarray, np.ndarray]  # pixel and semantic, uint16[N, D] each


class PictureEncoder(Protocol):
    """A tokenizer, which data/ may not import: train/picture_encoder.py hands it in."""

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def num_patches(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def encode(self, pictures: Sequence[Image.Image]) -> list[CodePair]: ...


class PictureFiles:
    """The pictures under a folder, by their path in it, as a store of codes.

    Without an encoder documents can be made, of images without positions, and no codes be read.
    """

    def __init__(self, folder: str | Path, encoder: PictureEncoder | None, max_bad_share: float = 0.01):
        self.path = Path(folder)
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder {str(folder)!r}: images= names a folder of picture files")
        self.encoder, self.max_bad_share = encoder, max_bad_share
        self.num_read = self.num_bad = self.num_encoded = 0
        self._cache: dict[str, CodePair] = {}
        self._room = CACHE_BYTES
        self._lock = Lock()

    @property
    def grid(self) -> tuple[int, int]:
        return (0, 0) if self.encoder is None else self.encoder.grid

    @property
    def num_patches(self) -> int:
        return 0 if self.encoder is None else self.encoder.num_patches

    @property
    def depth(self) -> int:
        return 0 if self.encoder is None else self.encoder.depth

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self._file(name))  # not Path.is_file, which raises an OSError on long names

    def _file(self, name: str) -> Path:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise ValueError(f"the picture {name!r} leads out of the folder {str(self.path)!r}")
        return self.path / parts

    def check(self, name: str) -> None:
        """Raises ValueError if the file is no picture. Reads its header alone: every rank checks every picture."""
        file = self._file(name)
        try:
            with Image.open(file) as image:
                num_pixels = image.width * image.height
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, … on broken input
            raise ValueError(f"{file} cannot be read as an image ({type(error).__name__}: {error})") from error
        if num_pixels > MAX_PIXELS:
            raise ValueError(f"{file} has {num_pixels} pixels, more than the limit of {MAX_PIXELS}")

    def codes_of(self, names: Sequence[str]) -> list[CodePair | None]:
        """Codes in the order of `names`; None for a picture that is broken behind its header."""
        with self._lock:  # the tokenizer takes one batch at a time
            self.num_read += len(names)
            new = [name for name in dict.fromkeys(names) if name not in self._cache]
            found = {name: self._cache[name] for name in names if name in self._cache}
            pictures = dict(self._open(new))
            if pictures:
                if self.encoder is None:
                    raise ValueError(f"the pictures in {str(self.path)!r} need a tokenizer, and none was given")
                for name, pair in zip(pictures, self.encoder.encode(list(pictures.values())), strict=True):
                    found[name] = pair
                    self._keep(name, pair)
                self.num_encoded += len(pictures)
            return [found.get(name) for name in names]

    def _open(self, names: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
        for name in names:
            try:
                yield name, load_image(self._file(name))
            except (ValueError, OSError) as error:
                self.num_bad += 1
                if self.num_bad > self.max_bad_share * max(self.num_read, 100):
                    raise ValueError(
                        f"{self.num_bad} of {self.num_read} pictures are unusable, the last one: {error}"
                    ) from error
                logger.warning("skipped a picture: %s", error)

    def _keep(self, name: str, pair: CodePair) -> None:
        size = sum(codes.nbytes for codes in pair)
        if size <= self._room:
            self._cache[name] = pair
            self._room -= size
