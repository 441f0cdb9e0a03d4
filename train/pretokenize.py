"""Raw images → code stores: every image passes through the tokenizer once, however long the training (Sec. 3.3).

    torchrun --nproc_per_node 8 -m train.pretokenize configs/full/pretokenize.yaml

Images stream from their shards, so memory does not grow with the source, and threads decode them while the tower works
on the batch before. Each shard becomes a part of the store, whole or absent (data/code_parts.py); a batch never holds
images of two shards: started again, with any number of processes, it continues with the missing shards and ends with
the same store.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from typing import Any, NamedTuple

import datasets
import torch
from torch import Tensor
from tqdm import tqdm

from data.code_counts import STATISTICS, as_table
from data.code_parts import CodeParts
from data.codes import CodeStore, CodeWriter
from data.image_batches import describe
from data.images import ImageTransform
from data.raw_sample import RawSample
from data.sample_health import Health
from data.shard_names import check_spec
from data.shards import iterate_prepared, units
from tokenizer import DualCodes, DualTokenizer
from train.config import save_config
from train.distributed import WEEK, World, init_world, leave_world
from train.launch import run_launched
from train.precision import set_matmul_precision
from train.verify_codes import verify


@dataclass(frozen=True)
class PretokenizeConfig:
    tokenizer: str = "runs/demo/tokenizer/export"
    source: Any = "assets/emoji/train-*.tar.gz"  # names of data/shard_names.py: one, or a list
    out: str = "runs/demo/codes/train"
    batch_size: int = 128
    num_workers: int = 4  # threads of each process that decode pictures
    verify: int = 0  # pictures that are decoded from their codes in the end, into OUT/verify.png; --verify is 16
    precision: str = "auto"
    limit_bad_share: float = 0.01  # of unusable samples, above which it stops

    def __post_init__(self) -> None:
        check_spec(self.source, "source")
        for name, least in (("batch_size", 1), ("num_workers", 0), ("verify", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")


class Prepared(NamedTuple):
    shard: str
    key: str
    pixel_values: Tensor  # float32[3, h, w]
    metadata: dict[str, Any]


def main(config: PretokenizeConfig) -> None:
    set_matmul_precision(config.precision)
    datasets.disable_progress_bars()  # one for every part would hide ours
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer)
    transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)
    quantizer = tokenizer.config.pixel
    provenance = {
        "tokenizer_id": tokenizer.tokenizer_id,
        "transform": transform.describe(),
        "num_patches": tokenizer.grid[0] * tokenizer.grid[1],
        "grid": list(tokenizer.grid),
        "depth": quantizer.depth,
        "codebook_size": quantizer.codebook_size,
        "source": config.source,
    }
    parts = CodeParts(config.out, provenance, units(config.source))
    world = init_world(timeout_minutes=WEEK)
    try:
        tokenizer.to(world.device)
        is_published = world.gather(world.is_main and parts.is_published())[0]
        if not is_published:
            world.on_main(parts.discard_outdated)
            health = parts.health(config.limit_bad_share)  # what an earlier run met counts as well
            missing = world.gather(parts.missing())[0]  # as the main process sees it, before any is written
            write_parts(parts, missing[world.rank :: world.size], tokenizer, transform, config, world, health)
            world.barrier()
            world.on_main(parts.publish, config.limit_bad_share)
            world.on_main(save_config, config, parts.path / "config.yaml")
        if world.is_main:
            print(as_table(json.loads((parts.path / STATISTICS).read_text())))
            try:
                CodeStore.open(parts.path).check_keys()
            except ValueError as error:  # captions and drawings need no keys
                print(f"warning: {error}")
            if config.verify:
                print(verify(parts.path, tokenizer, transform, config.verify))
    finally:
        leave_world()


@torch.no_grad()
def write_parts(
    parts: CodeParts,
    shards: list[str],
    tokenizer: DualTokenizer,
    transform: ImageTransform,
    config: PretokenizeConfig,
    world: World,
    health: Health,
) -> None:
    """The parts of `shards`, one after the other. The bar guesses the number of images from the shards read so far."""

    def prepare(sample: RawSample) -> Prepared:
        return Prepared(sample.shard, sample.key, transform(sample.image), describe(sample))

    made = iterate_prepared(
        shards,
        prepare,
        health=health,
        num_workers=config.num_workers,
        ahead=2 * config.batch_size,
    )
    with tqdm(desc="pretokenize", unit="image", disable=not world.is_main) as bar:
        for num_done, (shard, own) in enumerate(by_shard(shards, (sample for _, sample in made)), start=1):
            with parts.writer(shard) as writer:
                for batch, codes in encode_all(own, tokenizer, config.batch_size, world.device):
                    add_rows(writer, batch, codes)
                    bar.update(len(batch))
                writer.num_bad = health.bad[shard]  # all of them: the next shard has begun, or there is none
            bar.total = round(bar.n * len(shards) / num_done)


def by_shard(shards: list[str], samples: Iterator[Prepared]) -> Iterator[tuple[str, Iterator[Prepared]]]:
    """Each shard with its samples, also one that has none. They are to be read to their end before the next shard."""
    rest = iter(shards)
    for found, own in groupby(samples, key=lambda sample: sample.shard):
        yield from ((shard, iter(())) for shard in takewhile(lambda shard: shard != found, rest))  # noqa: B023
        yield found, own
    yield from ((shard, iter(())) for shard in rest)


def encode_all(
    samples: Iterator[Prepared], tokenizer: DualTokenizer, batch_size: int, device: torch.device
) -> Iterator[tuple[list[Prepared], DualCodes]]:
    """Batches with their codes. On a GPU a batch is under way while the one before is written."""
    under_way = None
    while batch := list(islice(samples, batch_size)):
        pixel_values = torch.stack([sample.pixel_values for sample in batch])
        if device.type == "cuda":
            pixel_values = pixel_values.pin_memory()
        codes = tokenizer.encode(pixel_values.to(device, non_blocking=True))
        if device.type != "cuda":
            yield batch, codes
            continue
        if under_way is not None:
            yield under_way
        under_way = batch, codes
    if under_way is not None:
        yield under_way


def add_rows(writer: CodeWriter, batch: list[Prepared], codes: DualCodes) -> None:
    branches = (branch.cpu().numpy() for branch in codes)
    for sample, pixel, semantic in zip(batch, *branches, strict=True):
        writer.add(sample.key, pixel, semantic, sample.metadata["captions"], sample.metadata)


if __name__ == "__main__":
    run_launched(PretokenizeConfig, main)
