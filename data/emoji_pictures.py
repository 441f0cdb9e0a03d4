"""The pictures of both emoji packages, joined by code point, with the errors of the packages put right."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.images import load_image

Pictures = dict[tuple[str, str], Image.Image]
"""(code points with fe0f stripped, style) → square RGB."""

SIZE = 64

# In @lobehub/fluent-emoji-3d 1.1.0 the pictures of the medium-light and the medium tone stand under each other's code
# point, except in these concepts, which are right. (Seen by eye, and by brightness: in the flat package each darker
# tone is a darker picture.) Left alone, every caption about these two tones would be false.
_RIGHTLY_TONED = frozenset(
    [
        "1f468-200d-1f4bb",
        "1f469-200d-1f4bb",
        "1f9d1-200d-1f4bb",
        "1f46b",
        "1f46c",
        "1f46d",
        "1f48f",
        "1f491",
        "1f9d1-200d-1f91d-200d-1f9d1",
    ]
)
_SWAPPED = {"1f3fc": "1f3fd", "1f3fd": "1f3fc"}
_MOUNTAIN_BIKER = {"1f3fb": "1f3ff", "1f3ff": "1f3fb", "1f3fc": "1f3fd", "1f3fd": "1f3fe", "1f3fe": "1f3fc"}
"""The one concept (1f6b5) whose five pictures are in another order again: file → what it shows."""

# Fluent Emoji has no such flags: the package fills the gap with the flat package's own pictures.
_BORROWED = ("country-flag", "subdivision-flag")


def strip_selector(code_points: str) -> str:
    """`26F9-FE0F-200D-2640-FE0F` → `26f9-200d-2640`: how a concept is written everywhere."""
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")


def _joinable(code_points: str) -> str:
    """The packages differ in fe0f, in leading zeros, and in how they end and join the tags of a flag."""
    parts = code_points.lower().replace("_", "-").split("-")
    return "-".join(part.lstrip("0") for part in parts if part not in ("fe0f", "e007f"))


def _shown_tone(concept: str, tone: str) -> str:
    """The tone seen in the Fluent picture that is filed under `tone`."""
    if concept in _RIGHTLY_TONED:
        return tone
    return (_MOUNTAIN_BIKER if concept == "1f6b5" else _SWAPPED).get(tone, tone)


def variants_of(entry: dict[str, Any]) -> dict[str, list[str]]:
    """Code points of the plain emoji and of each skin tone variant → its tones, lower case."""
    toned = {variant["unified"]: tones for tones, variant in entry.get("skin_variations", {}).items()}
    return {
        strip_selector(entry["unified"]): [],
        **{strip_selector(unified): tones.lower().split("-") for unified, tones in toned.items()},
    }


def _flat_files(entry: dict[str, Any]) -> dict[str, str]:
    variants = [entry, *entry.get("skin_variations", {}).values()]
    return {strip_selector(variant["unified"]): variant["image"] for variant in variants}


def _square(path: Path, size: int) -> Image.Image:
    """On white, `size` pixels wide and high."""
    image = load_image(path)
    if image.width != image.height:
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        image = square
    return image if image.width == size else image.resize((size, size), Image.Resampling.LANCZOS)


def load_pictures(entries: list[dict[str, Any]], google: Path, fluent: Path, size: int = SIZE) -> tuple[Pictures, int]:
    """Both packages' pictures; also the number of Fluent pictures without a name in the other package."""
    files: dict[str, Path] = {}
    for path in sorted(fluent.glob("assets/*.webp")):
        files.setdefault(_joinable(path.stem), path)
    if not files:
        raise FileNotFoundError(f"there is no picture assets/*.webp in {fluent}: unpack @lobehub/fluent-emoji-3d there")
    pictures: Pictures = {}
    for entry in entries:
        concept = strip_selector(entry["unified"])
        variants = variants_of(entry)
        by_tone = {tones[0]: code for code, tones in variants.items() if len(tones) == 1}
        flat_files = _flat_files(entry)
        for code, tones in variants.items():
            pictures[code, "flat"] = _square(google / "img/google/64" / flat_files[code], size)
            file = files.pop(_joinable(code), None)
            if file is not None:
                shown = by_tone[_shown_tone(concept, tones[0])] if len(tones) == 1 else code
                pictures[shown, "3d"] = _square(file, size)
    return pictures, len(files)


def drop_borrowed(pictures: Pictures, entries: list[dict[str, Any]]) -> int:
    """Removes the Fluent pictures that are not Fluent Emoji; returns their number."""
    borrowed = [strip_selector(entry["unified"]) for entry in entries if entry["subcategory"] in _BORROWED]
    return sum(pictures.pop((code, "3d"), None) is not None for code in borrowed)


def drop_copies(pictures: Pictures, limit: float = 0.5) -> list[tuple[str, str]]:
    """Removes (nearly) identical pictures of one style and returns their keys.

    Among copies the emoji known to both packages is kept, then the one with the fewest code points: the flag of France
    and not of its territories, the snowboarder and not the five tones that cannot be seen under the goggles.
    """
    both = {code for code, _ in pictures if (code, "flat") in pictures and (code, "3d") in pictures}
    order = sorted(pictures, key=lambda key: (key[1], key[0] not in both, key[0].count("-"), key[0]))
    dropped: list[tuple[str, str]] = []
    for style in ("flat", "3d"):
        keys = [key for key in order if key[1] == style]
        thumbnails = np.stack([_thumbnail(pictures[key]) for key in keys])
        kept: list[int] = []
        for index, key in enumerate(keys):
            distances = ((thumbnails[kept] - thumbnails[index]) ** 2).mean(axis=1)
            if kept and distances.min() < limit:
                dropped.append(key)
            else:
                kept.append(index)
    for key in dropped:
        del pictures[key]
    return dropped


def _thumbnail(image: Image.Image) -> np.ndarray:
    """float32[768]: small enough to compare all pairs, large enough to tell clocks apart."""
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32).ravel()
