"""FID between two sets of pictures, or of their Inception features (Heusel et al. 2017; paper Tab. 1).

    dualtoken score fid --reference-features A.npz --features B.npz
    dualtoken score fid --reference DIR --images DIR --inception-weights FILE --protocol clean

The files hold `features` [N, d], a row a picture. Protocols differ in how a picture is brought to 299 × 299, and
figures are compared within one alone: eval/fid.py. `dualtoken-jpeg` passes both sides through JPEG, so give it
lossless files.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from eval import fid_sides
from eval.frechet import Moments, frechet_distance
from eval.picture_folders import pictures_in

HELP = "Fréchet Inception distance, from features or from folders"
PROTOCOL = "Fréchet distance, covariances over n − 1, float64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    fid_sides.add_arguments(parser, "`features` [N, d]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    sides, described = fid_sides.read_sides(
        args, lambda features, _: {"all": features}, lambda folder: {"all": pictures_in(folder)}
    )
    reference, images = (side["all"] for side in sides)
    few = min(len(reference), len(images))
    warnings = {"fewer_images_than_dimensions": few} if few <= reference.shape[1] else {}
    return {
        **described,
        "fid": frechet_distance(Moments.of(reference), Moments.of(images)),
        "num_reference": len(reference),
        "num_images": len(images),
        "dimensions": reference.shape[1],
        "warnings": {**warnings, **described["warnings"]},
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("FID", f"{result['fid']:.4f}"),
        ("images", f"{result['num_images']} against {result['num_reference']}"),
        ("protocol", result["protocol"]),
    ]
