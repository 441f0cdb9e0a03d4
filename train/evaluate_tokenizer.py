"""`dualtoken eval-tokenizer`: what the codes keep of a picture and of its meaning (paper Tab. 1 and 3, any pictures).

    torchrun --nproc_per_node 8 -m train.evaluate_tokenizer configs/full/tokenizer_eval.yaml

Pictures stream from their folder or shards; their measurements are kept in parts (eval/parts.py), so that a stopped run
continues, and any number of processes ends with the same figures. The main process makes the figures.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.image_batches import describe
from data.images import ImageTransform
from data.shard_names import expand_shards
from data.shards import count_samples, iterate_shards, select_samples
from eval import tokenizer_figures as figures
from eval.class_texts import CaptionedFiles, ClassTexts, flickr8k, templated_classes
from eval.fid import PROTOCOLS, FidFeatures
from eval.judge import Judge
from eval.measure import Instruments, load_lpips
from eval.parts import Parts, fingerprint
from eval.sheets import reconstruction_sheet
from tokenizer import DualTokenizer
from train.distributed import WEEK, World, init_world, leave_world
from train.launch import run_launched
from train.precision import set_matmul_precision
from train.run import Run, TrackingConfig, flatten, write_atomically

SHEET_COLUMNS = 8


@dataclass(frozen=True)
class FidConfig:
    weights: str | None = None  # the file pt_inception-2015-12-05-6726825d.pth; null: no FID
    protocols: list[str] = field(default_factory=lambda: list(PROTOCOLS))


@dataclass(frozen=True)
class Flickr8kConfig:
    captions: str | None = None  # the file flickr8k_test_karpathy.txt; null: not measured
    images: str = "flickr8k/images"


@dataclass(frozen=True)
class EvaluateTokenizerConfig:
    out: str = "runs/demo/tokenizer-eval"
    tokenizer: str = "runs/demo/tokenizer/export"
    tower: str = "runs/demo/tower/export"  # both halves of SigLIP, for the text features
    images: str = "assets/emoji/unseen_concept-*.tar.gz"  # shards, or a folder of pictures in any depth of folders
    label: str | None = "subcategory"  # the metadata key to classify by: also `cls` of shards, `folder`; null: not
    classes: str = "assets/emoji/train-*.tar.gz"  # whose captions describe the classes; with `templates`, their names
    templates: str | None = None  # a file of sentences; `classes` is then a file of LABEL<tab>NAME lines
    flickr8k: Flickr8kConfig = field(default_factory=Flickr8kConfig)
    fid: FidConfig = field(default_factory=FidConfig)
    lpips: bool = False
    tower_distance: bool = False  # a perceptual distance by the tower (eval/judge.py), where no VGG16 is at hand
    lpips_weights: str | None = None  # torchvision's VGG16; null: its cache, which a download fills
    batch_size: int = 64
    part_size: int = 1000  # pictures of a part: what a kill may cost each process
    limit_bad_share: float = 0.01  # of unusable pictures, above which there are no figures
    precision: str = "auto"


def main(config: EvaluateTokenizerConfig) -> None:
    set_matmul_precision(config.precision)
    world = init_world(timeout_minutes=WEEK)
    try:
        evaluate(config, world)
    finally:
        leave_world()


def evaluate(config: EvaluateTokenizerConfig, world: World) -> None:
    """Every file is opened before the first picture is measured, so that a mistake is known at once."""
    instruments = open_instruments(config, world.device)
    described = describe_classes(config) if world.is_main and config.label is not None else None
    captioned = flickr8k(config.flickr8k.captions, config.flickr8k.images) if config.flickr8k.captions else None
    run = Run(config.out, config, TrackingConfig(), world.is_main)
    transform = ImageTransform(instruments.tokenizer.image_size, instruments.tokenizer.config.crop)
    num_images = world.gather(count_samples(config.images) if world.is_main else 0)[0]
    parts = Parts(run.folder / "parts", made_from(config, transform), num_images, config.part_size)
    missing = world.gather(parts.missing())[0]  # as the main process sees it, before any is written
    measure_parts(parts, missing[world.rank :: world.size], instruments, transform, config, world.is_main)
    world.barrier()
    if world.is_main:
        result = summarise(parts, instruments, described, captioned, transform, config)
        save_sheets(run, parts, instruments, transform, config.images)
        save_per_image(run.folder / "per_image.jsonl", parts, distances_of(config))
        run.finish(result)
        print_result(result, run.folder)


def open_instruments(config: EvaluateTokenizerConfig, device: torch.device) -> Instruments:
    tokenizer, judge = DualTokenizer.from_pretrained(config.tokenizer), Judge(config.tower, device)
    lpips = load_lpips(config.lpips_weights).to(device) if config.lpips else None
    fid = FidFeatures(config.fid.weights, config.fid.protocols).to(device) if config.fid.weights else None
    return Instruments(tokenizer.to(device), judge, lpips, fid, config.tower_distance)


def distances_of(config: EvaluateTokenizerConfig) -> list[str]:
    return [name for name in ("lpips", "tower_distance") if getattr(config, name)]


def describe_classes(config: EvaluateTokenizerConfig) -> ClassTexts:
    if config.templates is not None:
        return templated_classes(config.classes, config.templates)
    samples = [describe(sample) for sample in iterate_shards(config.classes)]  # the captions, not the pictures
    labelled = [sample for sample in samples if sample.get(str(config.label)) is not None]
    if not labelled:
        raise ValueError(f"no sample of {config.classes} has {config.label!r} in its metadata: set `label` to a key")
    number = {name: i for i, name in enumerate(sorted({sample[str(config.label)] for sample in labelled}))}
    texts = [sample["captions"][0] for sample in labelled]
    return ClassTexts(number, texts, [number[sample[str(config.label)]] for sample in labelled])


def made_from(config: EvaluateTokenizerConfig, transform: ImageTransform) -> str:
    """The fingerprint of everything that decides the measurements of a part."""
    names = ("images", "fid", "lpips", "lpips_weights", "tower_distance", "batch_size", "part_size", "precision")
    choices = {name: value for name, value in asdict(config).items() if name in names}
    paths = [config.tokenizer, config.tower, *expand_shards(config.images), config.fid.weights or ""]
    return fingerprint({**choices, "transform": transform.describe()}, paths)


def measure_parts(
    parts: Parts,
    numbers: list[int],
    instruments: Instruments,
    transform: ImageTransform,
    config: EvaluateTokenizerConfig,
    is_main: bool,
) -> None:
    """The parts of this process, in one pass over the pictures. A part whose pictures are all bad is written empty."""
    left = set(numbers)
    if not left:
        return
    samples = select_samples(config.images, lambda place: place // parts.size in left)
    total = sum(map(parts.num_places, numbers))
    with tqdm(total=total, desc="measure", unit="image", disable=not is_main) as bar:
        for number, own in groupby(samples, key=lambda placed: placed[0] // parts.size):
            parts.write(number, *instruments.measure_all(own, transform, config.batch_size, bar.update))
            left.remove(number)
    for number in left:
        parts.write(number, [], {})


def summarise(
    parts: Parts,
    instruments: Instruments,
    described: ClassTexts | None,
    captioned: CaptionedFiles | None,
    transform: ImageTransform,
    config: EvaluateTokenizerConfig,
) -> dict[str, Any]:
    """The sections of result.json. Raises ValueError where too many pictures could not be read."""
    num_measured = len(parts.samples())
    skipped = parts.num_images - num_measured
    if not num_measured or skipped > config.limit_bad_share * parts.num_images:
        raise ValueError(
            f"{skipped} of {parts.num_images} pictures of {config.images} could not be read, more than the allowed "
            f"share of {config.limit_bad_share:g}: the messages above name them; repair them or raise limit_bad_share"
        )
    judge = instruments.judge
    protocols = config.fid.protocols if instruments.fid is not None else []
    protocol = {
        "pictures": transform.describe(),
        "psnr": "of each image on [0, 1] at 8 bits, then the mean",
        "ssim": "11×11 Gaussian, σ 1.5, valid region, at 8 bits",
        "tokenizer_id": instruments.tokenizer.tokenizer_id,
    }
    if config.lpips:
        protocol["lpips"] = "VGG16, version 0.1, at 8 bits"
    if config.tower_distance:
        protocol["tower_distance"] = f"of normalised patch features, all layers of {config.tower}; no LPIPS"
    if protocols:
        protocol["rfid"] = f"Inception 2015-12-05, {num_measured} images; published figures are over 50,000"
    sections: dict[str, Any] = {
        "reconstruction": {**figures.reconstruction(parts, distances_of(config)), "skipped": skipped},
        "rfid": figures.rfid(parts, protocols),
        **figures.codebook_use(parts),
        "zero_shot": figures.zero_shot(parts, judge, described, str(config.label)) if described else {},
        "retrieval": figures.retrieval(parts, judge),
        "flickr8k": figures.flickr8k(instruments, captioned, transform, config.batch_size) if captioned else {},
        "protocol": protocol,
    }
    return {name: section for name, section in sections.items() if section}


def save_sheets(run: Run, parts: Parts, instruments: Instruments, transform: ImageTransform, images: str) -> None:
    """Pictures over reconstructions: a row of the best by PSNR and one of the worst, and some evenly spaced."""
    samples, values = parts.samples(), parts.joined("psnr")
    order = values.argsort(descending=True, stable=True).tolist()
    columns = min(SHEET_COLUMNS, len(order))
    spread = [i * len(order) // (4 * columns) for i in range(min(4 * columns, len(order)))]
    extremes = order[:columns] + order[-columns:]
    places = {samples[i]["place"] for i in extremes + spread}
    pictures = {place: transform(sample.image) for place, sample in select_samples(images, places.__contains__)}
    names = [f"{samples[i]['key'].split('/')[-1]} {values[i]:.1f} dB" for i in extremes]
    scale = max(1, 128 // transform.size)
    for name, shown, captions in (("best-and-worst", extremes, names), ("reconstructions", spread, None)):
        batch = torch.stack([pictures[samples[i]["place"]] for i in shown])
        batch = batch.to(instruments.judge.model.device)
        run.save_image(name, reconstruction_sheet(instruments.tokenizer, batch, columns, scale, captions))


def save_per_image(path: Path, parts: Parts, distances: list[str]) -> None:
    """One line a picture: its key and its figures; PSNR is null where the picture is reproduced exactly."""
    names = ["psnr", "ssim", *distances]
    columns = [parts.joined(name).tolist() for name in names]
    lines = []
    for sample, *values in zip(parts.samples(), *columns, strict=True):
        row = {name: None if math.isinf(value) else value for name, value in zip(names, values, strict=True)}
        lines.append(json.dumps({"key": sample["key"], **row}) + "\n")
    write_atomically(path, "".join(lines))


def print_result(result: dict[str, dict[str, Any]], out: Path) -> None:
    for section, values in result.items():
        if section != "protocol":
            lines = [f"{name} {value:.4g}" for name, value in flatten(values).items()]
            print(f"{section:20s}", "  ".join(lines))
    print(f"written to {out / 'result.json'}")


if __name__ == "__main__":
    run_launched(EvaluateTokenizerConfig, main)
