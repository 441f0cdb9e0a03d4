"""Builds webdataset shards from the public-domain clip art of two Debian packages (DESIGN.md §5), once, by a user:

    python -m data.build_openclipart --out datasets/openclipart --size 128

`apt-get download` fetches openclipart-png (the pictures) and openclipart-svg (titles and keywords), 156 MB, unless
--package-dir names a folder that has them. Pictures are fitted into a white square; broken, huge, tiny, long, blank and
repeated ones are left out, counted, and named in OUT/skipped.txt.
"""

import argparse
import hashlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.emoji_splits import fraction_of
from data.images import load_image
from data.openclipart_names import Described, captions_of, group_of, name_of, read_metadata
from data.shard_writer import Sample, write_shards

PACKAGES = ("openclipart-png", "openclipart-svg")
ROOT = "usr/share/openclipart"
SPLITS = ("train", "held_out")
HELD_OUT_SHARE = 0.05
SAMPLES_PER_SHARD = 500
MAX_PIXELS = 16 * 1024 * 1024  # a larger drawing is a map or a poster, of which nothing is left at 128 px
SMALLEST_SHARE = 0.25  # of --size: a smaller picture would be mostly invented by enlarging
LONGEST = 6  # long side : short side

Skipped = dict[str, list[str]]
"""Reason → the paths of pictures that were left out for it."""


class Picture(NamedTuple):
    path: str
    image: Image.Image


def unpack(folder: Path, package_dir: Path | None) -> Path:
    """The packages' files below `folder`; they are downloaded if no folder has them."""
    if package_dir is None:
        package_dir = folder / "packages"
        package_dir.mkdir()
        _run(["apt-get", "download", *PACKAGES], package_dir)
    for package in PACKAGES:
        files = sorted(package_dir.glob(f"{package}_*.deb"))
        if not files:
            raise FileNotFoundError(f"no {package}_*.deb in {package_dir}: run `apt-get download {package}` there")
        _run(["dpkg-deb", "-x", str(files[-1].resolve()), str(folder / "files")], folder)
    return folder / "files" / ROOT


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ValueError(f"{command[0]} is not installed: a Debian system or a container of one has it") from error
    if done.returncode:
        raise ValueError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())[-300:]}")


def read_descriptions(folder: Path) -> dict[str, Described]:
    """By the path without its ending."""
    found = {}
    for file in sorted(folder.rglob("*.svg")):
        text = file.read_bytes().decode(errors="replace")
        found[file.relative_to(folder).with_suffix("").as_posix()] = read_metadata(text)
    return found


def read_pictures(folder: Path, size: int, skipped: Skipped) -> Iterator[Picture]:
    """The usable pictures, in order of their paths. Of copies, one outside of the folder of duplicates is kept."""
    seen: dict[str, str] = {}
    files = sorted(folder.rglob("*.png"), key=lambda file: ("duplicates" in file.parts, file.as_posix()))
    for file in files:
        path = file.relative_to(folder).as_posix()
        try:
            image = load_image(file, MAX_PIXELS)
        except (ValueError, OSError) as error:
            reason = "huge" if "more than the limit" in str(error) or "far more" in str(error) else "broken"
            skipped.setdefault(reason, []).append(path)
            continue
        if reason := _unusable(image, size):
            skipped.setdefault(reason, []).append(path)
            continue
        fitted = fit(image, size)
        content = hashlib.sha256(fitted.tobytes()).hexdigest()
        if content in seen:
            skipped.setdefault("copy", []).append(f"{path} = {seen[content]}")
            continue
        seen[content] = path
        yield Picture(path, fitted)


def _unusable(image: Image.Image, size: int) -> str:
    if max(image.size) < size * SMALLEST_SHARE:
        return "tiny"
    if max(image.size) > LONGEST * min(image.size):
        return "long"
    return "blank" if np.ptp(np.asarray(image.resize((16, 16))), axis=(0, 1)).max() < 8 else ""


def fit(image: Image.Image, size: int) -> Image.Image:
    """Into the middle of a white square."""
    scale = size / max(image.size)
    inner = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), "white")
    square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return square


def split_of(group: str) -> str:
    """Decided by the group's name alone, so that it stays as it is when pictures come or go."""
    return SPLITS[fraction_of(f"openclipart {group}") < HELD_OUT_SHARE]


def collect_samples(pictures: Iterator[Picture], descriptions: dict[str, Described]) -> list[Sample]:
    uses = Counter(described.title for described in descriptions.values())
    samples = []
    for path, image in pictures:
        stem = path.removesuffix(".png")
        described = descriptions.get(stem, Described())
        name = name_of(path, described, uses)
        group, captions = group_of(name), captions_of(name, path, described.keywords)
        metadata = {
            "caption": captions[0],
            "captions": captions,
            "name": name,
            "group": group,
            "keywords": described.keywords,
            "category": path.split("/")[0],
            "author": described.author,
            "source": "Debian openclipart 0.18 (Open Clip Art Library)",
            "license": "public domain",
        }
        samples.append(Sample(stem.replace(".", "_"), split_of(group), image, metadata))  # a key ends at its first dot
    return sorted(samples, key=lambda sample: hashlib.sha256(sample.key.encode()).digest())  # shards of mixed folders


def build(out: Path, size: int, package_dir: Path | None) -> list[str]:
    """Writes the shards and returns a summary, one fact a line."""
    if size < 16:
        raise ValueError(f"--size {size} is too small: pictures need at least 16 pixels")
    skipped: Skipped = {}
    with tempfile.TemporaryDirectory(prefix="openclipart-") as folder:
        root = unpack(Path(folder), package_dir.resolve() if package_dir else None)
        descriptions = read_descriptions(root / "svg")
        num_files = sum(1 for _ in (root / "png").rglob("*.png"))
        samples = collect_samples(read_pictures(root / "png", size, skipped), descriptions)
    if not samples:
        raise ValueError("the packages hold no usable picture: are they openclipart-png and openclipart-svg 0.18?")
    write_shards(samples, out, SPLITS, SAMPLES_PER_SHARD, "tar")
    lines = [f"{reason}\t{path}\n" for reason, paths in sorted(skipped.items()) for path in paths]
    (out / "skipped.txt").write_text("".join(lines), encoding="utf-8")
    num_groups = len({sample.metadata["group"] for sample in samples})
    return [
        f"{num_files} pictures, {len(descriptions)} drawings with metadata",
        *(f"{len(paths)} {reason}, left out" for reason, paths in sorted(skipped.items())),
        *(f"{split}: {sum(sample.split == split for sample in samples)} pictures" for split in SPLITS),
        f"{num_groups} groups of names; {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB in {out}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Build shards from Debian's openclipart packages.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="width and height (%(default)s)")
    parser.add_argument("--package-dir", type=Path, metavar="DIR", help="folder with the two .deb files (downloaded)")
    options = parser.parse_args()
    try:
        print("\n".join(build(options.out, options.size, options.package_dir)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
