"""MJHQ-30K: FID of drawn pictures against the reference set, for each of its ten categories and over all.

    dualtoken score mjhq --reference DIR --images DIR --inception-weights FILE --protocol clean
    dualtoken score mjhq --reference-features A.npz --features B.npz

Folders: the category is the first folder below, as in the official archive (`animals/…jpg`). Files: `features` [N, d]
and `category` [N], a name for each row. The leaderboard's figure is the one over all, by clean-fid. A category has
3,000 pictures, so its own figure is biased upwards and is compared with other categories' figures alone.
"""

import argparse
from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from eval import fid_sides
from eval.arrays import read_text_array, require_same_length
from eval.frechet import Moments, frechet_distance
from eval.picture_folders import pictures_in

HELP = "MJHQ-30K: FID per category and over all"
PROTOCOL = "Fréchet distance, covariances over n − 1, float64; per category and over all pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    fid_sides.add_arguments(parser, "`features` [N, d], `category` [N]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    sides, described = fid_sides.read_sides(args, _split, _by_category)
    result = score(*sides)
    return {**described, **result, "warnings": {**result["warnings"], **described["warnings"]}}


def score(reference: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Features float[n, d] of each category, twice → `fid`, `per_category`."""
    moments = [{name: Moments.of(side[name]) for name in sorted(side)} for side in (reference, images)]
    alone = [name for name in moments[0] if min(side[name].count for side in moments) < 2]
    uneven = [name for name in moments[0] if moments[0][name].count != moments[1][name].count]
    warnings = {"categories_with_other_numbers_of_pictures": uneven, "categories_too_small_to_score": alone}
    return {
        "fid": frechet_distance(*(reduce(add, side.values()) for side in moments)),
        "per_category": {
            name: frechet_distance(moments[0][name], moments[1][name]) for name in moments[0] if name not in alone
        },
        "num_images": sum(part.count for part in moments[1].values()),
        "num_reference": sum(part.count for part in moments[0].values()),
        "warnings": {name: value for name, value in warnings.items() if value},
    }


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    categories = [(name, f"{value:.4f}") for name, value in result["per_category"].items()]
    return [("FID", f"{result['fid']:.4f}"), *categories, ("protocol", result["protocol"])]


def _split(features: np.ndarray, path: str) -> dict[str, np.ndarray]:
    categories = read_text_array(path, "category")
    if categories is None:
        raise ValueError(f"{path} has no array 'category', a name for each row of 'features'")
    require_same_length(path, features=features, category=categories)
    return {str(name): features[categories == name] for name in np.unique(categories)}


def _by_category(folder: str) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in pictures_in(folder):
        category, *rest = path.relative_to(folder).parts
        if not rest:
            raise ValueError(
                f"{path} is in no folder of a category: MJHQ-30K is laid out as {folder}/CATEGORY/NAME.jpg"
            )
        groups.setdefault(category, []).append(path)
    return groups
