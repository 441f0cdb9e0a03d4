"""Retrieval between pictures and captions (Flickr8k, paper Tab. 1): recall@K both ways.

    dualtoken score retrieval --features F.npz

F.npz: `image` [N, d], `text` [M, d], `text_image_index` [M], the picture of each caption. Text to image: of all
captions, how many have their picture among the K nearest pictures? Image to text: of all pictures, how many have any
of their captions among the K nearest captions?
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.arrays import read_arrays, require_directions, require_indices, require_same_length, require_same_width
from eval.ranking import hit_rate, normalise, ranks

HELP = "retrieval: recall@1, 5, 10 both ways from features, 0-1"
PROTOCOL = "text to image over all captions; image to text counts any caption of the image; cosine, first of equals"

KS = (1, 5, 10)


def recall(
    image_features: np.ndarray, text_features: np.ndarray, text_image: np.ndarray, ks: Sequence[int] = KS
) -> dict[str, dict[str, float]]:
    """R@K both ways between images float[N, d] and texts float[M, d], of the images `text_image` int64[M]."""
    text_image = np.asarray(text_image)
    found = {
        "text_to_image": ranks(text_features, image_features, text_image[:, None]),
        "image_to_text": ranks(image_features, text_features, texts_of_images(text_image, len(image_features))),
    }
    return {name: {f"recall@{k}": hit_rate(rank, k) for k in ks} for name, rank in found.items()}


def retrieval_at_1(image_features: np.ndarray, text_features: np.ndarray) -> dict[str, float]:
    """R@1 both ways for aligned pairs float[N, d]."""
    pairs = recall(image_features, text_features, np.arange(len(image_features)), ks=[1])
    return {name: figures["recall@1"] for name, figures in pairs.items()}


def texts_of_images(text_image: np.ndarray, num_images: int) -> np.ndarray:
    """int64[M] → int64[num_images, m], the texts of each image, −1 behind where it has fewer than m."""
    counts = np.bincount(text_image, minlength=num_images)
    order = np.argsort(text_image, kind="stable")
    place = np.arange(len(text_image)) - np.repeat(np.cumsum(counts) - counts, counts)
    own = np.full((num_images, max(1, counts.max())), -1)
    own[text_image[order], place] = order
    return own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", required=True, metavar="F.npz", help="image, text and text_image_index")


def run(args: argparse.Namespace) -> dict[str, Any]:
    path = args.features
    images, texts, owners = read_arrays(path, image=2, text=2, text_image_index=1).values()
    require_same_length(path, text=texts, text_image_index=owners)
    require_same_width(path, image=images, text=texts)
    owners = require_indices(owners, len(images), "text_image_index", path)
    require_directions(path, image=images, text=texts)
    without = len(images) - len(np.unique(owners))
    return {
        **recall(normalise(images), normalise(texts), owners),
        "num_images": len(images),
        "num_texts": len(texts),
        "warnings": {"images_without_texts": without} if without else {},
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    ways = [("text to image", result["text_to_image"]), ("image to text", result["image_to_text"])]
    return [(f"{way} {name}", f"{value:.4f}") for way, figures in ways for name, value in figures.items()]
