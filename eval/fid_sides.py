"""The two sides of an FID on the command line: files of features, or folders of pictures and the network's weights.

Torch is imported for folders alone: features that exist are compared without it.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from data.decode import load_image
from eval.arrays import read_arrays, require_same_width
from eval.files import require_same_ids
from eval.picture_folders import size_name

PROTOCOLS = ("clean", "pytorch-fid", "torch-fidelity", "dualtoken-jpeg")
FROM_FEATURES = "Fréchet distance of given features; whose they are, and by which resizing, is the file's to say"
JPEG_SIZE = "384×384"  # of the pictures that the authors' released evaluation saves
_BATCH = 32


def add_arguments(parser: argparse.ArgumentParser, keys: str) -> None:
    for option, what in (("--reference-features", "of the reference"), ("--features", "of the images")):
        parser.add_argument(option, metavar="F.npz", help=f"features {what}: {keys}")
    parser.add_argument("--reference", metavar="DIR", help="folder of reference pictures")
    parser.add_argument("--images", metavar="DIR", help="folder of pictures to score")
    parser.add_argument("--inception-weights", metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth, for folders")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="clean", help="for folders (default: %(default)s)")


def uses_features(args: argparse.Namespace) -> bool:
    """Whether both files of features were given. Raises ValueError unless it is these, or both folders, alone."""
    features, folders = (args.reference_features, args.features), (args.reference, args.images)
    if all(features) and not any((*folders, args.inception_weights)):
        return True
    if all(folders) and not any(features):
        if not args.inception_weights:
            raise ValueError(
                "FID of pictures needs --inception-weights, the file pt_inception-2015-12-05-6726825d.pth from the "
                "releases of pytorch-fid: another network would be another number"
            )
        return False
    raise ValueError("give --reference-features and --features, or --reference, --images and --inception-weights")


def read_features(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """float[n, d], float[m, d], one row a picture."""
    reference, images = (read_arrays(path, features=2)["features"] for path in (args.reference_features, args.features))
    require_same_width(args.features, reference=reference, images=images)
    return reference, images


def read_sides(
    args: argparse.Namespace,
    of_features: Callable[[np.ndarray, str], dict[str, np.ndarray]],
    of_folder: Callable[[str], dict[str, list[Path]]],
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Features float[n, d] of reference and images in groups; and `protocol`, `sizes` and `warnings` of the result.

    Features of a file, or the pictures of a folder, are put into groups by the two functions. Raises ValueError where
    one side lacks a group of the other.
    """
    sizes: dict[str, Counter[str]] = {}
    if uses_features(args):
        names = args.reference_features, args.features
        sides = [of_features(features, path) for features, path in zip(read_features(args), names, strict=True)]
        protocol = FROM_FEATURES
    else:
        names = args.reference, args.images
        groups = [of_folder(folder) for folder in names]
        extract = Extractor(args.inception_weights, args.protocol)
        sizes, protocol = extract.sizes, f"Inception 2015-12-05, {args.protocol}"
        sides = [
            {name: extract(paths, side) for name, paths in group.items()}
            for group, side in zip(groups, sizes, strict=True)
        ]
    require_same_ids(sides[0], sides[1], *names)
    return sides, {"protocol": protocol, "sizes": sizes, "warnings": size_warnings(args.protocol, sizes)}


def size_warnings(protocol: str, sizes: Mapping[str, Counter[str]]) -> dict[str, int]:
    """`dualtoken-jpeg` is a protocol at one size: at another, JPEG takes another share of the picture away."""
    others = sum(counts.total() - counts[JPEG_SIZE] for counts in sizes.values())
    return {"pictures_not_of_the_protocols_384_pixels": others} if protocol == "dualtoken-jpeg" and others else {}


class Extractor:
    """Paths of pictures of any size → Inception features float32[n, 2048]; `sizes` counts those of each side."""

    def __init__(self, weights: str, protocol: str):
        import torch

        from eval.fid import FidFeatures

        self.protocol, self.torch = protocol, torch
        self.sizes: dict[str, Counter[str]] = {"reference": Counter(), "images": Counter()}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.net = FidFeatures(weights, [protocol]).to(self.device)

    def __call__(self, paths: list[Path], side: str) -> np.ndarray:
        return np.concatenate([self._features(batch, self.sizes[side]) for batch in _batches(paths)])

    def _features(self, batch: np.ndarray, sizes: Counter[str]) -> np.ndarray:
        """uint8[b, h, w, 3] → float32[b, 2048]."""
        sizes[size_name(batch[0])] += len(batch)
        pictures = self.torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)
        features: Any = self.net(pictures)[self.protocol]
        return features.float().cpu().numpy()


def _batches(paths: list[Path]) -> Iterator[np.ndarray]:
    """Neighbours of one size together."""
    pictures = (np.asarray(load_image(path)) for path in paths)
    for _, same in groupby(pictures, key=lambda picture: picture.shape):
        while batch := list(islice(same, _BATCH)):
            yield np.stack(batch)
