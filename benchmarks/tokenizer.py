"""`encode` against the bare tower up to the semantic tap, `decode`, a training step, at the paper's size or any.

    python -m benchmarks.tokenizer configs/full/tokenizer_paper.yaml --images 1 --repeats 1 --no-step

    python -m benchmarks.tokenizer configs/tiny/tokenizer.yaml tokenizer.tower=runs/demo/tower/export --images 64

Weights are random: time does not depend on them. Where `tokenizer.tower` is a folder of weights, the training step is
the stage's own, with reference tower, losses, optimizer and discriminator as the config has them; else it is the
forward and backward pass and the codebooks' update. At full size that needs some 12 GB.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import machine, medians
from data.image_batches import ImageBatch
from tokenizer import DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of
from train.config import load_config
from train.distributed import World
from train.precision import set_matmul_precision
from train.train_tokenizer import Trainer, TrainTokenizerConfig


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="of train-tokenizer; its tower gives the sizes alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-step", action="store_true", help="leave out the training step")
    args = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = load_config(TrainTokenizerConfig, args.config, args.overrides)
    config = training.tokenizer
    torch.manual_seed(0)
    model = DualTokenizer(config, VisionTower(vision_config_of(config.tower, config.image_size), config.attention))
    model.to(device).eval()
    images = torch.rand(args.images, 3, model.image_size, model.image_size, device=device) * 2 - 1
    print(f"{machine()}; {args.config}, {args.images} image(s), fp32")

    @torch.no_grad()
    def bare() -> torch.Tensor:
        return model.tower.run(model.tower.embed(images), 1, config.semantic_layer)

    codes = model.encode(images).pixel
    seconds = medians({"bare tower": bare, "encode": lambda: model.encode(images)}, args.repeats)
    report(seconds, args.images)
    print(f"encode / bare tower: {seconds['encode'] / seconds['bare tower']:.3f} (target: at most 1.25)")
    report(medians({"decode": lambda: model.decode(codes)}, args.repeats), args.images)
    model.decoder.to(memory_format=torch.channels_last)
    report(medians({"decode, channels-last": lambda: model.decode(codes)}, args.repeats), args.images)
    model.decoder.to(memory_format=torch.contiguous_format)
    profiled = {"encode and decode": lambda: model.decode(model.encode(images).pixel)}
    if not args.no_step:
        train = stage_step(training, images) if Path(config.tower).is_dir() else lambda: step(model.train(), images)
        report(medians({"training step": train}, args.repeats), args.images)
        profiled["a training step"] = train
    model.eval()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    for name, work in profiled.items():
        with profile(activities=activities) as profiler:
            work()
        print(name)
        print(profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=8, max_name_column_width=40))


def stage_step(config: TrainTokenizerConfig, images: torch.Tensor) -> Callable[[], Any]:
    """A whole step of `dualtoken train-tokenizer`, once the discriminator has begun, on the same pictures each time."""
    set_matmul_precision(config.precision)
    trainer = Trainer(config, World(device=images.device))
    batches: Any = itertools.repeat(ImageBatch(images, []))
    return lambda: trainer.step(batches, config.loop.steps)


def step(model: DualTokenizer, images: torch.Tensor) -> None:
    """Forward and backward, with codebook updates; optimizer, reference tower and discriminator are not in it."""
    output = model(images)
    model.zero_grad(set_to_none=True)
    parts = (output.pixel_commitment, output.semantic_commitment, output.pooled.square().mean())
    ((output.reconstruction - images).square().mean() + sum(parts)).backward()


def report(seconds: dict[str, float], images: int) -> None:
    for name, value in seconds.items():
        print(f"{name:<24}{value:8.3f} s   {images / value:8.2f} images/s")


if __name__ == "__main__":
    main()
