"""What reading pictures costs beside the bare read of their bytes, pre-tokenizing beside the bare encode, and a resume.

    python -m benchmarks.data_raw --shards 'assets/emoji/train-*.tar.gz' --tokenizer runs/demo/tokenizer/export

Every figure is a median over repetitions that alternate between what is compared; the ratios are of one run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from data.image_batches import ImageDataConfig, streamed_batches
from data.images import ImageTransform
from data.shard_names import expand_shards
from data.shards import iterate_prepared, iterate_shards
from tokenizer import DualTokenizer
from train.precision import set_matmul_precision
from train.pretokenize import PretokenizeConfig
from train.pretokenize import main as pretokenize


def alternate(repetitions: int, **functions: Callable[[], object]) -> dict[str, float]:
    """The median seconds of each function, called in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def read_bytes(shards: str) -> None:
    for shard in expand_shards(shards):
        with open(shard, "rb") as file:
            while file.read(1 << 20):
                pass


def consume(shards: str, size: int, num_workers: int) -> None:
    transform = ImageTransform(size)
    for _ in iterate_prepared(shards, lambda sample: transform(sample.image), num_workers=num_workers):
        pass


def resume(shards: str, transform: ImageTransform, start: int) -> None:
    batches = streamed_batches(ImageDataConfig(shards=shards, batch_size=8, in_memory=False), transform)
    batches.load_state_dict({"epoch": 0, "start": start})
    next(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shards", default="assets/emoji/train-000000.tar.gz")
    parser.add_argument("--tokenizer", required=True, metavar="DIR")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    set_matmul_precision()
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as pretokenize does
    tokenizer = DualTokenizer.from_pretrained(options.tokenizer)
    transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)
    shards, size = options.shards, tokenizer.image_size
    pictures = torch.stack([transform(sample.image) for sample in iterate_shards(shards)])
    megabytes = sum(Path(shard).stat().st_size for shard in expand_shards(shards)) / 1e6
    num = len(pictures)
    print(f"{num} pictures, {megabytes:.1f} MB, {size} px, {torch.get_num_threads()} threads of torch")

    found = alternate(
        options.repetitions,
        bytes=lambda: read_bytes(shards),
        inline=lambda: consume(shards, size, 0),
        threads=lambda: consume(shards, size, options.workers),
    )
    print(f"bare read of the bytes       {megabytes / found['bytes']:10.0f} MB/s")
    for name, what in (("inline", "no threads"), ("threads", f"{options.workers} threads")):
        print(
            f"decoded, scaled, {what:<11} {num / found[name]:10.0f} images/s, {megabytes / found[name]:.1f} MB/s, "
            f"{found['bytes'] / found[name]:.4f} of the bare read"
        )

    start = int(0.9 * num)
    found = alternate(
        options.repetitions,
        resumed=lambda: resume(shards, transform, start),
        from_the_start=lambda: resume(shards, transform, 0),
        replayed=lambda: consume(shards, size, 0),
    )
    print(f"first batch at 90 % of an epoch  {found['resumed']:.2f} s, at 0 % {found['from_the_start']:.2f} s")
    print(f"decoding the epoch               {found['replayed']:.2f} s")

    def encode() -> None:
        for start in range(0, num, options.batch_size):
            tokenizer.encode(pictures[start : start + options.batch_size])

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            pretokenize(
                PretokenizeConfig(
                    tokenizer=options.tokenizer,
                    source=shards,
                    out=f"{folder}/codes",
                    batch_size=options.batch_size,
                    num_workers=options.workers,
                )
            )

    found = alternate(options.repetitions, encode=encode, pretokenize=whole)
    ratio = found["encode"] / found["pretokenize"]
    rates = {name: num / seconds for name, seconds in found.items()}
    print(f"bare encode {rates['encode']:.1f} images/s, pretokenize {rates['pretokenize']:.1f}: {ratio:.3f} of it")


if __name__ == "__main__":
    main()
