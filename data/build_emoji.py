"""Builds the emoji shards that ship in assets/emoji from two npm packages (DESIGN.md §5). Run once, not by users:

    npm pack emoji-datasource-google@16.0.0 @lobehub/fluent-emoji-3d@1.1.0
    mkdir google fluent
    tar xzf emoji-datasource-google-16.0.0.tgz -C google --strip-components 1
    tar xzf lobehub-fluent-emoji-3d-1.1.0.tgz -C fluent --strip-components 1
    python -m data.build_emoji --google google --fluent fluent --out assets/emoji

The first package holds Noto Emoji (flat, Apache-2.0) and the names and categories; the second Fluent Emoji (3d, MIT).
They are joined by code point. Pictures are composited on white, 64×64, lossy WebP; the same input gives the same bytes.
`--size 128` makes larger ones: the 3d style is 256 px at its source, the flat one 64 px and enlarged.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from data.emoji_captions import captions_of, describe_tones
from data.emoji_names import aliases_of, name_of
from data.emoji_pictures import SIZE, Pictures, drop_borrowed, drop_copies, load_pictures, strip_selector, variants_of
from data.emoji_splits import SPLITS, STYLES, image_id_of, split_of
from data.shard_writer import Sample, write_shards

SAMPLES_PER_SHARD = 1250
SOURCES = {
    "flat": {"source": "emoji-datasource-google 16.0.0 (Noto Emoji)", "license": "Apache-2.0"},
    "3d": {"source": "@lobehub/fluent-emoji-3d 1.1.0 (Fluent Emoji)", "license": "MIT"},
}


def collect_samples(entries: list[dict[str, Any]], pictures: Pictures) -> list[Sample]:
    """One sample per picture, sorted by key; two pictures with one canonical caption are an error."""
    names = {strip_selector(entry["unified"]): name_of(entry, strip_selector(entry["unified"])) for entry in entries}
    aliases = {concept: aliases_of(entry, names[concept]) for entry, concept in zip(entries, names, strict=True)}
    uses = Counter([*names.values(), *(alias for words in aliases.values() for alias in words)])
    samples = []
    for entry, concept in zip(entries, names, strict=True):
        distinct_aliases = [alias for alias in aliases[concept] if uses[alias] == 1]
        variants = variants_of(entry)
        styles = {style for code in variants for style in STYLES if (code, style) in pictures}
        for code, tones in variants.items():
            for style in sorted(style for style in styles if (code, style) in pictures):
                key, skin_tone = f"{code}-{style}", describe_tones(tones)
                captions = captions_of(names[concept], distinct_aliases, style, skin_tone)
                metadata = {
                    "caption": captions[0],
                    "captions": captions,
                    "concept": concept,
                    "name": names[concept],
                    "aliases": distinct_aliases,
                    "style": style,
                    "category": entry["category"],
                    "subcategory": entry["subcategory"],
                    "skin_tone": skin_tone,
                    "image_id": image_id_of(key),
                    **SOURCES[style],
                }
                split = split_of(concept, style, has_both_styles=len(styles) == 2)
                samples.append(Sample(key, split, pictures[code, style], metadata))
    _refuse_repetitions("canonical caption", [sample.metadata["caption"] for sample in samples])
    _refuse_repetitions("image id", [str(sample.metadata["image_id"]) for sample in samples])
    return sorted(samples, key=lambda sample: sample.key)


def _refuse_repetitions(what: str, values: list[str]) -> None:
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"{len(repeated)} emoji share a {what}: {', '.join(repeated[:5])}; name them apart")


def build(google: Path, fluent: Path, folder: Path, size: int = SIZE) -> list[str]:
    """Writes the shards and returns a summary, one fact a line."""
    entries = json.loads((google / "emoji.json").read_text(encoding="utf-8"))
    named = [entry for entry in entries if entry["category"] != "Component"]  # the bare skin tone swatches
    pictures, num_unnamed = load_pictures(named, google, fluent, size)
    num_flat_only = sum((code, "3d") not in pictures for code, style in pictures if style == "flat")
    copies = drop_copies(pictures)
    num_borrowed = drop_borrowed(pictures, named)
    samples = collect_samples(named, pictures)
    write_shards(samples, folder, SPLITS, SAMPLES_PER_SHARD, "tar.gz")
    return [
        f"{len(entries) - len(named)} entries are bare skin tones, skipped",
        f"{num_unnamed} Fluent pictures match no code point of the other package, skipped",
        f"{num_flat_only} flat pictures have no Fluent counterpart",
        f"{num_borrowed} Fluent pictures of country flags are copies of the flat ones, skipped",
        f"{len(copies)} pictures repeat another one, skipped: {', '.join('-'.join(key) for key in copies)}",
        *(_describe(split, [sample for sample in samples if sample.split == split]) for split in SPLITS),
        f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f} MB in {folder}",
    ]


def _describe(split: str, samples: list[Sample]) -> str:
    num_concepts = len({sample.metadata["concept"] for sample in samples})
    styles = Counter(sample.metadata["style"] for sample in samples)
    return f"{split}: {len(samples)} pictures of {num_concepts} concepts ({styles['flat']} flat, {styles['3d']} 3d)"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the emoji shards from the two unpacked npm packages.")
    parser.add_argument("--google", type=Path, required=True, help="folder with emoji.json and img/google/64")
    parser.add_argument("--fluent", type=Path, required=True, help="folder with assets/*.webp")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--size", type=int, default=SIZE, help="width and height of a picture (%(default)s)")
    options = parser.parse_args()
    try:
        print("\n".join(build(options.google, options.fluent, options.out, options.size)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
