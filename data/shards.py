"""Raw pictures with captions from webdataset tars or a folder of images (DESIGN.md §5, §9).

A tar holds one sample under one key: `KEY.jpg|jpeg|png|webp` with `KEY.txt` and/or `KEY.json` (its `caption`), the
img2dataset layout, compressed or not; `KEY.cls` is its class, as in the usual shards of ImageNet. Members are read as a
stream and never written to disk, so their names are only names. A bad sample is skipped, counted and logged with shard
and key; too many of them end the run with an error.
"""

import glob
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from data.images import load_image

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
SHUFFLE_BUFFER = 2048
_CHECK_EVERY = 1000
"""Bad samples are weighed against the limit this often: a share of the first ten means little."""

Spec = str | Path | Sequence[str | Path]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RawSample:
    key: str
    image: Image.Image
    """RGB."""
    caption: str
    metadata: dict[str, Any]
    """Its JSON; besides, `cls` where a file of that ending gives a class, and `folder`, the name of its folder."""
    shard: str
    """The tar or the folder it came from."""


@dataclass
class _Health:
    """How many samples of each shard were read, and how many were bad."""

    limit: float
    seen: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def skip(self, shard: str, key: str, reason: object) -> None:
        self.bad[shard] += 1
        logger.warning("skipped %s in %s: %s", key, shard, reason)

    def check(self) -> None:
        num_bad = self.bad.total()
        if num_bad and num_bad > self.limit * self.seen:
            worst, count = self.bad.most_common(1)[0]
            raise ValueError(
                f"{num_bad} of {self.seen} samples could not be read, more than the allowed share of {self.limit:g}; "
                f"the worst shard is {worst} with {count}: repair it or raise limit_bad_share"
            )


def expand_shards(spec: Spec) -> list[Path]:
    """Files and folders named by a path, a glob, a brace range `x-{000000..000009}.tar`, or several of these.

    Several are a list, or one string with commas between them. A folder that holds tars stands for its tars; any other
    folder is a folder of images and stands for itself.
    """
    if not isinstance(spec, str | Path):
        return [path for part in spec for path in expand_shards(part)]
    if Path(spec).exists():
        path = Path(spec)
        tars = sorted(child for child in path.iterdir() if ".tar" in child.suffixes) if path.is_dir() else []
        return tars or [path]
    parts = re.split(r",(?![^{]*})", str(spec))  # commas outside of braces
    return [path for part in parts for pattern in _expand_braces(part.strip()) for path in _expand_glob(pattern)]


def _expand_braces(pattern: str) -> list[str]:
    from braceexpand import braceexpand

    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise ValueError(f"the shard pattern {pattern} has unbalanced braces") from error


def _expand_glob(pattern: str) -> list[Path]:
    found = sorted(glob.glob(pattern, recursive=True)) or ([pattern] if Path(pattern).exists() else [])
    if not found:
        raise FileNotFoundError(f"no shard or folder matches {pattern}")
    return [Path(path) for path in found]


def iterate_shards(
    urls: Spec,
    *,
    shuffle_seed: int | None = None,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    limit_bad_share: float = 0.01,
) -> Iterator[RawSample]:
    """One pass over the samples of this rank, in an order that (seed, epoch, rank, world size) decides alone.

    Whole shards are dealt out to the ranks where there are enough of them; otherwise every rank reads all shards and
    takes each `world_size`-th sample. The shares of the ranks may differ in size.
    """
    shards = expand_shards(urls)
    if shuffle_seed is not None:
        random.Random(f"shards {shuffle_seed} {epoch}").shuffle(shards)
    by_shard = len(shards) >= world_size
    health = _Health(limit_bad_share)
    parts = _read_all(shards[rank::world_size] if by_shard else shards, health)
    if not by_shard:
        parts = (part for index, part in enumerate(parts) if index % world_size == rank)
    if shuffle_seed is not None:
        parts = _shuffle(parts, random.Random(f"samples {shuffle_seed} {epoch} {rank}"))
    for part in parts:
        if (sample := _decode_or_skip(part, health)) is not None:
            yield sample
        if health.seen % _CHECK_EVERY == 0:
            health.check()
    health.check()
    if health.bad:
        logger.warning("skipped %d of %d samples", health.bad.total(), health.seen)


def count_samples(urls: Spec) -> int:
    """How many samples there are, good or bad, in one pass that decodes nothing; ValueError where a tar is damaged."""
    health = _Health(limit=0)
    count = sum(1 for _ in _read_all(expand_shards(urls), health))
    if health.bad:
        raise ValueError(f"{next(iter(health.bad))} is damaged or cut short: what it should hold cannot be known")
    return count


def select_samples(urls: Spec, wanted: Callable[[int], bool]) -> Iterator[tuple[int, RawSample]]:
    """The samples whose place (from 0, in the order of the shards) is wanted, each with its place.

    The others are not decoded. For evaluation: captions are welcome, not required, and a bad sample is logged and left
    out, for the caller to count.
    """
    health = _Health(limit=1)
    for place, part in enumerate(_read_all(expand_shards(urls), health, needs_caption=False)):
        if wanted(place) and (sample := _decode_or_skip(part, health)) is not None:
            yield place, sample


@dataclass(frozen=True)
class _Part:
    """One sample before decoding: its files by ending, in a tar their bytes, in a folder their paths."""

    key: str
    shard: str
    files: dict[str, bytes | Path]
    needs_caption: bool


def _read_all(shards: Iterable[Path], health: _Health, needs_caption: bool = True) -> Iterator[_Part]:
    for shard in shards:
        yield from _read_folder(shard) if shard.is_dir() else _read_tar(shard, health, needs_caption)


def _read_tar(shard: Path, health: _Health, needs_caption: bool) -> Iterator[_Part]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    def skip(error: Exception) -> bool:
        health.seen += 1
        health.skip(str(shard), "a member", f"{type(error).__name__}: {error}")
        return True

    # The file is opened here and not by webdataset, whose own opener runs `pipe:` addresses as shell commands.
    with shard.open("rb") as stream:
        members = tar_file_expander([{"url": str(shard), "stream": stream}], handler=skip)
        for sample in group_by_keys(members, handler=skip):
            files = {ending: data for ending, data in sample.items() if not ending.startswith("__")}
            yield _Part(sample["__key__"], str(shard), files, needs_caption)


def _read_folder(folder: Path) -> Iterator[_Part]:
    """Images below a folder, sorted; a caption beside them (`name.txt`, `name.json`) is welcome, not required."""
    for path in sorted(folder.rglob("*")):
        ending = path.suffix[1:].lower()
        if ending in IMAGE_ENDINGS and path.is_file():
            beside = {kind: path.with_suffix(f".{kind}") for kind in ("txt", "json")}
            files = {kind: file for kind, file in beside.items() if file.is_file()}
            key = path.relative_to(folder).with_suffix("").as_posix()
            yield _Part(key, str(folder), {ending: path, **files}, needs_caption=False)


def _shuffle(items: Iterable[Item], rng: random.Random) -> Iterator[Item]:
    """Draws from a window of SHUFFLE_BUFFER items: memory stays bounded on any number of shards."""
    window: list[Item] = []
    for item in items:
        if len(window) < SHUFFLE_BUFFER:
            window.append(item)
            continue
        index = rng.randrange(len(window))
        window[index], item = item, window[index]
        yield item
    rng.shuffle(window)
    yield from window


def _decode_or_skip(part: _Part, health: _Health) -> RawSample | None:
    health.seen += 1
    try:
        return _decode(part)
    except (ValueError, OSError, RecursionError) as error:
        health.skip(part.shard, part.key, error)
        return None


def _decode(part: _Part) -> RawSample:
    image = next((file for ending, file in part.files.items() if ending.split(".")[-1] in IMAGE_ENDINGS), None)
    if image is None:
        raise ValueError(f"it has no image (only {', '.join(sorted(part.files)) or 'nothing'})")
    texts = {kind: _text(part.files[kind]) for kind in ("txt", "json", "cls") if kind in part.files}
    metadata = json.loads(texts.get("json", "{}"))
    if not isinstance(metadata, dict):
        raise ValueError("its json is not an object")
    if "cls" in texts:
        metadata["cls"] = int(texts["cls"])
    if "/" in part.key:
        metadata.setdefault("folder", part.key.split("/")[-2])
    caption = texts["txt"] if "txt" in texts else metadata.get("caption", "")
    if not isinstance(caption, str) or (part.needs_caption and not caption.strip()):
        raise ValueError("it has no caption (neither txt nor a caption in json)")
    return RawSample(part.key, load_image(image), caption.strip(), metadata, part.shard)


def _text(file: bytes | Path) -> str:
    return (file.read_bytes() if isinstance(file, Path) else file).decode()
