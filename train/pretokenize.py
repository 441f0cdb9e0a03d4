"""Raw images → code stores: every image passes through the tokenizer once, however long the training (Sec. 3.3).

    torchrun --nproc_per_node 8 -m train.pretokenize configs/full/pretokenize.yaml

Images stream from their shards, so memory does not grow with the source. Each shard becomes a part of the store, whole
or absent (data/code_parts.py), and a batch never holds images of two shards: started again, with any number of
processes, it continues with the shards that are missing and ends with the same store.
"""

from dataclasses import dataclass
from itertools import groupby, islice

import datasets
import torch
from tqdm import tqdm

from data.code_parts import CodeParts
from data.image_batches import describe
from data.images import ImageTransform
from data.shards import expand_shards, iterate_shards
from tokenizer import DualTokenizer
from train.distributed import WEEK, World, init_world, leave_world
from train.launch import run_launched
from train.precision import set_matmul_precision


@dataclass(frozen=True)
class PretokenizeConfig:
    tokenizer: str = "runs/demo/tokenizer/export"
    source: str = "assets/emoji/train-*.tar.gz"  # a glob, a brace range or a comma-separated list
    out: str = "runs/demo/codes/train"
    batch_size: int = 128
    precision: str = "auto"
    limit_bad_share: float = 0.01  # of unusable samples, above which it stops

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")


def main(config: PretokenizeConfig) -> None:
    set_matmul_precision(config.precision)
    datasets.disable_progress_bars()  # one for every part would hide ours
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer)
    transform = ImageTransform(tokenizer.image_size)
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
    parts = CodeParts(config.out, provenance, expand_shards(config.source))
    world = init_world(timeout_minutes=WEEK)
    try:
        world.on_main(parts.discard_outdated)
        missing = world.gather(parts.missing())[0]  # as the main process sees it, before any is written
        write_parts(parts, missing[world.rank :: world.size], tokenizer.to(world.device), transform, config, world)
        world.barrier()
        world.on_main(parts.publish)
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
) -> None:
    """The parts of `shards`, one after the other. The bar guesses the number of images from the shards read so far."""
    samples = iterate_shards(shards, limit_bad_share=config.limit_bad_share)
    with tqdm(desc="pretokenize", unit="image", disable=not world.is_main) as bar:
        for num_done, (shard, own) in enumerate(groupby(samples, key=lambda sample: sample.shard), start=1):
            with parts.writer(shard) as writer:
                while batch := list(islice(own, config.batch_size)):
                    pixel_values = torch.stack([transform(sample.image) for sample in batch])
                    codes = tokenizer.encode(pixel_values.to(world.device))
                    for sample, pixel, semantic in zip(batch, codes.pixel.cpu(), codes.semantic.cpu(), strict=True):
                        metadata = describe(sample)
                        writer.add(sample.key, pixel.numpy(), semantic.numpy(), metadata["captions"], metadata)
                    bar.update(len(batch))
            bar.total = round(bar.n * len(shards) / num_done)


if __name__ == "__main__":
    run_launched(PretokenizeConfig, main)
