"""Zero-shot classification from image and text features (paper Tab. 1; arithmetic of open_clip's).

A class is described by sentences, ImageNet's by 80 templates and the shipped data's by captions: each text feature is
normalised, they are averaged, and the mean is normalised again. An image is of the class of greatest product.

    dualtoken score zeroshot --features F.npz

F.npz: `image_features` [N, d], `labels` [N], `template_text_features` [classes, templates, d], none normalised.
ImageNet's classes are in the order of the sorted synset folders, which that of `labels` must be.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from eval.arrays import read_arrays, require_directions, require_indices, require_same_length, require_same_width
from eval.ranking import hit_rate, normalise, ranks

HELP = "zero-shot classification: top-1 and top-5 from features, 0-1"
PROTOCOL = "each text feature normalised, mean over templates, normalised again; nearest by cosine, first of equals"


def class_features(text_features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Normalised text features float[M, d] with a class each int64[M] → float[num_classes, d]."""
    sums = np.zeros((num_classes, text_features.shape[1]), text_features.dtype)
    np.add.at(sums, labels, text_features)
    return normalise(sums)


def accuracy(image_features: np.ndarray, classes: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of images float[N, d] with their label int64[N] among the `k` nearest of `classes` float[c, d]."""
    return hit_rate(ranks(image_features, classes, np.asarray(labels)[:, None]), k)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", required=True, metavar="F.npz", help="features of pictures and templates, labels")


def run(args: argparse.Namespace) -> dict[str, Any]:
    path = args.features
    images, labels, texts = read_arrays(path, image_features=2, labels=1, template_text_features=3).values()
    require_same_length(path, image_features=images, labels=labels)
    require_same_width(path, image_features=images, template_text_features=texts)
    labels = require_indices(labels, len(texts), "labels", path)
    require_directions(path, image_features=images, template_text_features=texts)
    num_classes, num_templates, width = texts.shape
    owners = np.repeat(np.arange(num_classes), num_templates)
    classes = class_features(normalise(texts).reshape(-1, width), owners, num_classes)
    images = normalise(images)
    unseen = num_classes - len(np.unique(labels))
    return {
        "top1": accuracy(images, classes, labels),
        "top5": accuracy(images, classes, labels, k=5),
        "num_images": len(images),
        "num_classes": num_classes,
        "num_templates": num_templates,
        "warnings": {"classes_without_images": unseen} if unseen else {},
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("top-1", f"{result['top1']:.4f}"), ("top-5", f"{result['top5']:.4f}")]
