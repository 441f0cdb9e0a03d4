"""`encode` against the bare tower up to the semantic tap, `decode`, a training step, at the paper's size or any.

    python -m benchmarks.tokenizer configs/full/tokenizer_paper.yaml --images 1 --repeats 1 --no-step

Weights are random: time does not depend on them. A training step of the full size needs some 12 GB.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import machine, medians
from tokenizer import DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of
from train.config import load_config
from train.train_tokenizer import TrainTokenizerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="of train-tokenizer; its tower gives the sizes alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-step", action="store_true", help="leave out the training step")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = load_config(TrainTokenizerConfig, args.config, args.overrides).tokenizer
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
    if not args.no_step:
        report(medians({"training step": lambda: step(model.train(), images)}, args.repeats), args.images)
    model.eval()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        model.decode(model.encode(images).pixel)
    print(profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=8, max_name_column_width=40))


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
