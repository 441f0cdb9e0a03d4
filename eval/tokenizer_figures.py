"""What the measurements of a set of pictures say of a tokenizer (paper Tab. 1 and 3): the sections of its JSON.

Beside every semantic figure stands the untouched tower's own: the ceiling of what its quantized features can reach.
"""

from collections.abc import Hashable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.images import ImageTransform, load_image
from eval.class_texts import CaptionedFiles, ClassTexts
from eval.frechet import Moments, frechet_distance
from eval.judge import Judge
from eval.measure import Instruments
from eval.parts import Parts
from eval.reconstruction import means as pair_means
from eval.retrieval import recall, retrieval_at_1
from eval.zero_shot import accuracy, class_features
from tokenizer import BRANCHES
from tokenizer.code_use import perplexity, usage

FEATURES = ("quantized", "tower")


def reconstruction(parts: Parts, distances: Sequence[str]) -> dict[str, float]:
    """Means over pictures; `exact_images` and an absent `psnr` where some or all are reproduced exactly."""
    means = pair_means(parts.joined("psnr").tolist(), parts.joined("ssim").tolist())
    figures = {"psnr": means["psnr"], "ssim": means["ssim"], "images": means["num_images"]}
    if means["exact_images"]:
        figures["exact_images"] = means["exact_images"]
    figures |= {name: parts.joined(name).double().mean().item() for name in distances}
    return {name: value for name, value in figures.items() if value is not None}


def rfid(parts: Parts, protocols: Sequence[str]) -> dict[str, float]:
    """Fréchet distance between pictures and reconstructions under each protocol; the parts are added up in order."""
    distances: dict[str, float] = {}
    for protocol in protocols:
        sides = [
            reduce(add, (Moments.of(part.numpy()) for part in parts.tensors(f"fid.{protocol}.{side}")))
            for side in ("reference", "reconstruction")
        ]
        distances[protocol] = frechet_distance(*sides)
    return distances


def codebook_use(parts: Parts) -> dict[str, dict[str, float]]:
    """Share of entries that the codes use, and perplexity, of each branch; means where it has a codebook per depth."""
    result: dict[str, dict[str, float]] = {"codebook_usage": {}, "codebook_perplexity": {}}
    for branch in BRANCHES:
        counts = torch.stack(list(parts.tensors(f"{branch}_counts"))).sum(0)
        result["codebook_usage"][branch] = usage(counts).mean().item()
        result["codebook_perplexity"][branch] = perplexity(counts).mean().item()
    return result


def zero_shot(parts: Parts, judge: Judge, described: ClassTexts, label: str) -> dict[str, float]:
    """Top-1 and top-5 over the pictures whose metadata name one of the classes under `label`."""
    values = [sample.get(label) for sample in parts.samples()]
    numbers = [described.class_of_label.get(value) if isinstance(value, Hashable) else None for value in values]
    known = [i for i, number in enumerate(numbers) if number is not None]
    if not known:
        raise ValueError(
            f"no picture has a class that is described, under the label {label!r}: the first has {values[0]!r} where "
            f"{next(iter(described.class_of_label))!r} is one; set `label` to the key of the metadata that holds it"
        )
    labels = np.array([number for number in numbers if number is not None])
    texts = judge.texts(described.texts).numpy()
    classes = class_features(texts, np.array(described.text_class), described.num_classes)
    features = {name: parts.joined(name)[known].numpy() for name in FEATURES}
    top1 = {name: accuracy(features[name], classes, labels) for name in FEATURES}
    return {
        **top1,
        **{f"{name}_top5": accuracy(features[name], classes, labels, k=5) for name in FEATURES},
        "ratio_to_tower": top1["quantized"] / top1["tower"] if top1["tower"] else 0.0,
        "chance": 1 / described.num_classes,
        "classes": described.num_classes,
        "images": len(known),
    }


def retrieval(parts: Parts, judge: Judge) -> dict[str, Any]:
    """R@1 both ways between the pictures and their own first captions; nothing where they have none."""
    captions = [sample["captions"][0] for sample in parts.samples()]
    captioned = [i for i, caption in enumerate(captions) if caption]
    if not captioned:
        return {}
    texts = judge.texts([captions[i] for i in captioned]).numpy()
    figures: dict[str, Any] = {name: retrieval_at_1(parts.joined(name)[captioned].numpy(), texts) for name in FEATURES}
    return {**figures, "chance": 1 / len(captioned)}


def flickr8k(
    instruments: Instruments, data: CaptionedFiles, transform: ImageTransform, batch_size: int
) -> dict[str, Any]:
    """R@1, 5, 10 both ways over the test pictures and all their captions."""
    features: dict[str, list[Tensor]] = {name: [] for name in FEATURES}
    for start in range(0, len(data.files), batch_size):
        pixel_values = torch.stack([transform(load_image(file)) for file in data.files[start : start + batch_size]])
        for name, value in instruments.features(pixel_values).items():
            features[name].append(value.cpu())
    texts, owners = instruments.judge.texts(data.captions).numpy(), np.array(data.caption_file)
    figures: dict[str, Any] = {name: recall(torch.cat(features[name]).numpy(), texts, owners) for name in FEATURES}
    return {**figures, "images": len(data.files), "captions": len(data.captions)}
