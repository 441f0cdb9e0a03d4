"""Raw pictures with captions, whatever holds them: tars, folders, parquet files, data sets (DESIGN.md §5, §9).

data/shard_names.py says how they are named, data/read_*.py how each is read. Here they are dealt out to ranks,
shuffled, and decoded in worker threads. A bad sample is skipped, counted and logged with shard and key; too many end
the run with an error.
"""

import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar

from data.ordered_map import ordered_map
from data.raw_sample import RawPart, RawSample, decode
from data.read_folder import folder_parts, read_folder
from data.read_rows import dataset_parts, read_dataset, read_parquet
from data.read_tar import Damaged, read_tar
from data.sample_health import Health
from data.shard_names import DATASETS, PIPE, Spec, expand_shards, split_part

logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 2048
FOLDER_PART = 1000
"""Pictures of a folder that are pre-tokenized as one unit."""
_CHECK_EVERY = 1000
"""Bad samples are weighed against the limit this often: a share of the first ten means little."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Order(NamedTuple):
    """What decides the samples that a process reads, and their order: nothing else does."""

    seed: int | None = None
    """Of the shuffle; None: as they stand."""
    epoch: int = 0
    rank: int = 0
    world_size: int = 1


def iterate_shards(
    urls: Spec,
    *,
    shuffle_seed: int | None = None,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    limit_bad_share: float = 0.01,
    num_workers: int = 0,
) -> Iterator[RawSample]:
    """One pass over the samples of this rank, in an order that (seed, epoch, rank, world size) decides alone."""
    order = Order(shuffle_seed, epoch, rank, world_size)
    prepared = iterate_prepared(urls, _itself, order, limit_bad_share=limit_bad_share, num_workers=num_workers)
    return (sample for _, sample in prepared)


def iterate_prepared(
    urls: Spec,
    prepare: Callable[[RawSample], Made],
    order: Order = Order(),
    *,
    start: int = 0,
    limit_bad_share: float = 0.01,
    health: Health | None = None,
    num_workers: int = 0,
    ahead: int = 64,
) -> Iterator[tuple[int, Made]]:
    """What `prepare` makes of each sample of this rank, with how many samples, good or bad, are behind it then.

    That number as `start` continues there: what comes before is not decoded, and not read where it lies in plain tars.
    Whole shards are dealt out to the ranks where there are enough of them; otherwise every rank reads all shards and
    takes each `world_size`-th sample. The shares of the ranks may differ in size.

    Too many bad samples are a ValueError. With a `health` of the caller's own they are counted there, on top of what it
    holds, and after the last sample it is for the caller to judge.
    """
    shards = _with_parts(urls)
    if order.seed is not None:
        random.Random(f"shards {order.seed} {order.epoch}").shuffle(shards)
    by_shard = len(shards) >= order.world_size
    counted = Health(limit_bad_share) if health is None else health
    place, damages = 0, count(order.epoch)

    def is_damaged(shard: str, reason: object) -> None:
        if by_shard or next(damages) % order.world_size == order.rank:  # what all read is counted by one
            counted.damaged(shard, reason)

    own = shards[order.rank :: order.world_size] if by_shard else shards
    parts = _read_all(own, is_damaged, may_skip=lambda: place < start or not by_shard)
    if not by_shard:
        parts = (part for index, part in enumerate(parts) if index % order.world_size == order.rank)
    if order.seed is not None:
        parts = _shuffle(parts, random.Random(f"samples {order.seed} {order.epoch} {order.rank}"))

    def wanted() -> Iterator[RawPart]:
        nonlocal place
        for part in parts:
            place += 1
            if place > start:
                yield part
            else:
                counted.seen += 1  # as the damage behind `start` is met again, so must be what was good there

    next_check = counted.seen + _CHECK_EVERY
    made = ordered_map(partial(_try, prepare), wanted(), num_workers, ahead)
    for number, (part, result, mistake) in enumerate(made, start=start + 1):
        counted.seen += 1
        if mistake is not None:
            counted.skip(part.shard, part.key, mistake)
        elif result is not None:
            yield number, result
        if counted.seen >= next_check:
            counted.check()
            next_check = counted.seen + _CHECK_EVERY
    if health is None:
        counted.check()
    if counted.bad:
        logger.warning("skipped %d of %d samples", counted.bad.total(), counted.seen)


def count_samples(urls: Spec) -> int:
    """How many samples there are, good or bad, in one pass that decodes nothing; ValueError where a tar is damaged."""
    health = Health(limit=0)
    num = sum(1 for _ in _read_all(expand_shards(urls), health.damaged))
    if health.bad:
        raise ValueError(f"{next(iter(health.bad))} is damaged or cut short: what it should hold cannot be known")
    return num


def select_samples(urls: Spec, wanted: Callable[[int], bool]) -> Iterator[tuple[int, RawSample]]:
    """The samples whose place (from 0, in the order of the shards) is wanted, each with its place.

    The others are not decoded. For evaluation: captions are welcome, not required, and a bad sample is logged and left
    out, for the caller to count.
    """
    health = Health(limit=1)
    for place, part in enumerate(_read_all(expand_shards(urls), health.damaged, needs_caption=False)):
        if wanted(place):
            _, sample, mistake = _try(_itself, part)
            if mistake is not None:
                health.skip(part.shard, part.key, mistake)
            elif sample is not None:
                yield place, sample


def spread_samples(urls: Spec, num: int) -> list[RawSample]:
    """`num` samples, evenly spaced, or as many as there are; the others are not decoded. A bad one is left out.

    Raises ValueError if none is good.
    """
    total = sum(1 for _ in _read_all(expand_shards(urls), Health(limit=1).damaged))
    num = min(num, total)
    places = {i * total // num for i in range(num)}
    samples = [sample for _, sample in select_samples(urls, places.__contains__)]
    if not samples:
        raise ValueError(f"no usable image in {urls}")
    return samples


def find_samples(shard: str, keys: set[str]) -> Iterator[RawSample]:
    """The samples of a shard that have these keys, where they can be decoded."""
    for part in _read_all([shard], Health(limit=1).damaged, needs_caption=False):
        if part.key in keys and (sample := _try(_itself, part)[1]) is not None:
            yield sample


def units(urls: Spec) -> list[str]:
    """The shards, with large folders and data sets of many files in parts: what one process works on at a time."""
    folders = (folder_parts(shard, FOLDER_PART) if os.path.isdir(shard) else [shard] for shard in _with_parts(urls))
    return [part for parts in folders for part in parts]


def _with_parts(urls: Spec) -> list[str]:
    """The shards, with each file of a data set for itself."""
    parts = (dataset_parts(shard) if shard.startswith(DATASETS) else [shard] for shard in expand_shards(urls))
    return [part for own in parts for part in own]


def _read_all(
    shards: Iterable[str],
    count_damage: Callable[[str, object], None],
    needs_caption: bool = True,
    may_skip: Callable[[], bool] = lambda: True,
) -> Iterator[RawPart]:
    for shard in shards:
        yield from _read(shard, partial(count_damage, shard), needs_caption, may_skip)


def _read(shard: str, count_damage: Damaged, needs_caption: bool, may_skip: Callable[[], bool]) -> Iterator[RawPart]:
    num_read = 0

    def is_damaged(reason: object) -> None:
        count_damage(f"{reason} (it gave {num_read} samples before)")

    name, _ = split_part(shard)
    if name.startswith(DATASETS):
        parts = read_dataset(shard, is_damaged)
    elif not name.startswith(PIPE) and os.path.isdir(name):
        parts = read_folder(shard, is_damaged)
    elif name.endswith(".parquet"):
        parts = read_parquet(shard, is_damaged)
    else:
        parts = read_tar(shard, is_damaged, needs_caption, may_skip)
    for num_read, part in enumerate(parts, start=1):  # noqa: B007 (is_damaged reads it)
        yield part


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


def _itself(sample: RawSample) -> RawSample:
    return sample


def _try(prepare: Callable[[RawSample], Made], part: RawPart) -> tuple[RawPart, Made | None, Exception | None]:
    """What `prepare` makes of the decoded part, or why it cannot."""
    try:
        return part, prepare(decode(part)), None
    except (ValueError, OSError, RecursionError) as error:
        return part, None, error
