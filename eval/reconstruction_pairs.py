"""PSNR and SSIM between two folders of pictures (paper Tab. 1), paired by file name.

    dualtoken score reconstruction --reference DIR --images DIR

The arithmetic is eval/reconstruction.py's. Pictures are compared at the size and crop of the files, which both folders
must share: say it beside the figure (the paper's is ImageNet-1K val at 384 px, centre crop).
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.decode import load_image
from eval.picture_folders import pairs, size_name
from eval.reconstruction import score

HELP = "PSNR (dB) and SSIM of paired folders"
PROTOCOL = "per image at 8 bits, then the mean; SSIM 11×11 Gaussian, σ 1.5, valid region, K 0.01 0.03"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", required=True, metavar="DIR", help="the original pictures, cropped and scaled")
    parser.add_argument("--images", required=True, metavar="DIR", help="the reconstructions, under the same names")


def run(args: argparse.Namespace) -> dict[str, Any]:
    paired = pairs(args.reference, args.images)
    sizes: Counter[str] = Counter()
    result = score(_load(paired, sizes))
    rows = [{"name": name, **row} for (name, _, _), row in zip(paired, result["per_image"], strict=True)]
    exact = result["exact_images"]
    return {
        **result,
        "sizes": dict(sizes.most_common()),
        "warnings": {"exact_images_not_in_the_psnr": exact} if exact else {},
        "per_image": rows,
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    psnr = "every image is exact" if result["psnr"] is None else f"{result['psnr']:.3f} dB"
    return [("PSNR", psnr), ("SSIM", f"{result['ssim']:.4f}"), ("images", str(result["num_images"]))]


def _load(paired: Iterable[tuple[str, Path, Path]], sizes: Counter[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs float64[1, 3, h, w] in [0, 1]; counts their sizes."""
    for name, first, second in paired:
        reference, image = (np.asarray(load_image(path)) for path in (first, second))
        if reference.shape != image.shape:
            raise ValueError(
                f"the pictures {name!r} are {size_name(reference)} and {size_name(image)} pixels: scale and crop the "
                "reference as the tokenizer did"
            )
        sizes[size_name(reference)] += 1
        yield reference.transpose(2, 0, 1)[None] / 255, image.transpose(2, 0, 1)[None] / 255
