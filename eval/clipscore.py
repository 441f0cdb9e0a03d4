"""CLIPScore: does a drawn picture fit its prompt? (Hessel et al. 2021), from features of a backbone that is named.

    dualtoken score clipscore --features F.npz

F.npz: `image` [N, d] and `text` [N, d], row i of one prompt, and the string `backbone` (or --backbone). Figures of
different backbones are different numbers. `clipscore` is the official 2.5 · max(cos, 0); many tables print 100 ·
max(cos, 0) under the same name (torchmetrics, diffusers), which is `clipscore_100`.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from eval.arrays import (
    read_arrays,
    read_text_array,
    require_directions,
    require_same_length,
    require_same_width,
)
from eval.ranking import normalise

HELP = "CLIPScore from features of a named backbone"
PROTOCOL = "Hessel et al.: mean of 2.5 · max(cos, 0); clipscore_100 is 100 · max(cos, 0)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", required=True, metavar="F.npz", help="image, text and backbone")
    parser.add_argument("--backbone", metavar="NAME", help="whose features they are, such as ViT-L-14/openai")


def run(args: argparse.Namespace) -> dict[str, Any]:
    path = args.features
    images, texts = read_arrays(path, image=2, text=2).values()
    require_same_length(path, image=images, text=texts)
    require_same_width(path, image=images, text=texts)
    require_directions(path, image=images, text=texts)
    cosines = (normalise(images).astype(np.float64) * normalise(texts)).sum(axis=1)
    positive = float(np.maximum(cosines, 0).mean())
    return {
        "clipscore": 2.5 * positive,
        "clipscore_100": 100 * positive,
        "mean_cosine": float(cosines.mean()),
        "backbone": _backbone(args),
        "num_images": len(images),
        "warnings": {},
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("CLIPScore", f"{result['clipscore']:.4f}"),
        ("100 · max(cos, 0)", f"{result['clipscore_100']:.3f}"),
        ("backbone", result["backbone"]),
    ]


def _backbone(args: argparse.Namespace) -> str:
    stored = read_text_array(args.features, "backbone")
    name = "" if stored is None else str(stored.item()).strip() if stored.size == 1 else ""
    if args.backbone and name and args.backbone != name:
        raise ValueError(f"{args.features} holds features of {name!r}, not of --backbone {args.backbone!r}")
    if not (args.backbone or name):
        raise ValueError(f"{args.features} does not say whose features it holds: give --backbone NAME")
    return args.backbone or name
