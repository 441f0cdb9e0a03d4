"""Writes samples of pictures and metadata as webdataset shards, for the builders of data sets."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

WEBP_QUALITY = 100


@dataclass(frozen=True)
class Sample:
    key: str
    split: str
    image: Image.Image
    metadata: dict[str, Any]


def encode_picture(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    return buffer.getvalue()


def write_shard(path: Path, samples: list[Sample]) -> None:
    """A tar, gzipped if named so, without times and owners: the same samples give the same bytes."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0))  # type: ignore
        tar = stack.enter_context(tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT))
        for sample in samples:
            text = json.dumps(sample.metadata, ensure_ascii=False).encode()
            for ending, content in (("webp", encode_picture(sample.image)), ("json", text)):
                member = tarfile.TarInfo(f"{sample.key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_shards(
    samples: Sequence[Sample], folder: Path, splits: Iterable[str], samples_per_shard: int, ending: str
) -> None:
    """`SPLIT-000000.ENDING` … in `folder`, in the order of `samples`; older ones of these names are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        for old in folder.glob(f"{split}-{'[0-9]' * 6}.{ending}"):
            old.unlink()
        chosen = [sample for sample in samples if sample.split == split]
        for number, start in enumerate(range(0, len(chosen), samples_per_shard)):
            write_shard(folder / f"{split}-{number:06d}.{ending}", chosen[start : start + samples_per_shard])
