"""`dualtoken eval-tokenizer`: what the codes keep of a picture and its meaning (paper Tables 1 and 3, on any shards).

Beside every semantic figure stands the untouched tower's own: the ceiling of what its quantized features can reach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.image_batches import ImageSet, describe
from data.images import ImageTransform
from data.shards import iterate_shards
from eval.judge import Judge
from eval.reconstruction import from_pixel_values, psnr, ssim
from eval.sheets import reconstruction_sheet
from eval.zero_shot import class_features, retrieval_at_1, top1
from tokenizer import DualTokenizer
from train.precision import set_matmul_precision
from train.run import Run, TrackingConfig


@dataclass(frozen=True)
class EvaluateTokenizerConfig:
    out: str = "runs/demo/tokenizer-eval"
    tokenizer: str = "runs/demo/tokenizer/export"
    tower: str = "runs/demo/tower/export"  # both halves of SigLIP, for the text features
    classes: str = "assets/emoji/train-*.tar.gz"  # whose captions describe the classes
    images: str = "assets/emoji/unseen_concept-*.tar.gz"
    label: str = "subcategory"  # the metadata key to classify by
    batch_size: int = 64
    precision: str = "auto"


@torch.no_grad()
def main(config: EvaluateTokenizerConfig) -> None:
    set_matmul_precision(config.precision)
    tokenizer, judge = DualTokenizer.from_pretrained(config.tokenizer), Judge(config.tower)
    run = Run(config.out, config, TrackingConfig())
    images = ImageSet(config.images, ImageTransform(tokenizer.image_size))
    names = ("psnr", "ssim", "pixel", "semantic", "quantized", "tower")
    figures: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in images.in_order(config.batch_size):
        codes = tokenizer.encode(batch.pixel_values)
        original, decoded = (from_pixel_values(x) for x in (batch.pixel_values, tokenizer.decode(codes.pixel)))
        features = torch.nn.functional.normalize(tokenizer.pooled_features(codes.semantic), dim=-1)
        values = (psnr(original, decoded), ssim(original, decoded), *codes, features, judge.images(batch.pixel_values))
        for name, value in zip(figures, values, strict=True):
            figures[name].append(value)
    joined = {name: torch.cat(values) for name, values in figures.items()}
    reconstruction = {name: joined[name].mean().item() for name in ("psnr", "ssim")}
    result: dict[str, dict[str, Any]] = {
        "reconstruction": {**reconstruction, "images": len(images)},
        **codebook_use(joined["pixel"], joined["semantic"], tokenizer.config.pixel.codebook_size),
        "zero_shot": zero_shot(judge, config, images, joined["quantized"], joined["tower"]),
        "retrieval": retrieval(judge, images, joined["quantized"], joined["tower"]),
    }
    run.save_image("reconstructions", reconstruction_sheet(tokenizer, images.spread(32).pixel_values))
    run.finish(result)
    print_result(result, Path(config.out))


def codebook_use(pixel: Tensor, semantic: Tensor, codebook_size: int) -> dict[str, dict[str, float]]:
    """Share of entries that the codes int64[B, N, D] use, and perplexity exp(entropy)."""
    result: dict[str, dict[str, float]] = {"codebook_usage": {}, "codebook_perplexity": {}}
    for name, codes in (("pixel", pixel), ("semantic", semantic)):
        counts = torch.bincount(codes.flatten(), minlength=codebook_size).double()
        result["codebook_usage"][name] = (counts > 0).double().mean().item()
        result["codebook_perplexity"][name] = torch.special.entr(counts / counts.sum()).sum().exp().item()
    return result


def zero_shot(
    judge: Judge, config: EvaluateTokenizerConfig, images: ImageSet, quantized: Tensor, tower: Tensor
) -> dict[str, float]:
    """Top-1 over the classes that the `classes` shards name; chance is one in the number of classes."""
    described = [describe(sample) for sample in iterate_shards(config.classes)]  # the captions, not the pictures
    names = sorted({metadata[config.label] for metadata in described})
    index = {name: i for i, name in enumerate(names)}
    text_features = judge.texts([metadata["captions"][0] for metadata in described])
    classes = class_features(text_features, torch.tensor([index[m[config.label]] for m in described]), len(names))
    known = [i for i, metadata in enumerate(images.metadata) if metadata[config.label] in index]
    labels = torch.tensor([index[images.metadata[i][config.label]] for i in known])
    branches = {"quantized": quantized, "tower": tower}
    accuracy = {name: top1(features[known], classes, labels) for name, features in branches.items()}
    ratio = accuracy["quantized"] / accuracy["tower"] if accuracy["tower"] else 0.0
    return {**accuracy, "ratio_to_tower": ratio, "chance": 1 / len(names), "classes": len(names), "images": len(known)}


def retrieval(judge: Judge, images: ImageSet, quantized: Tensor, tower: Tensor) -> dict[str, dict[str, float]]:
    """R@1 both ways between the images and their first captions."""
    texts = judge.texts([metadata["captions"][0] for metadata in images.metadata])
    return {"quantized": retrieval_at_1(quantized, texts), "tower": retrieval_at_1(tower, texts)}


def print_result(result: dict[str, dict[str, Any]], out: Path) -> None:
    for section, values in result.items():
        flat = {f"{k}.{n}": v for k, d in values.items() for n, v in (d.items() if isinstance(d, dict) else [("", d)])}
        print(f"{section:20s}", "  ".join(f"{name.rstrip('.')} {value:.4g}" for name, value in flat.items()))
    print(f"written to {out / 'result.json'}")
