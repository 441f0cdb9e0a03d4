"""The emoji that ship: names, captions, splits, pictures, shards."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.build_emoji import collect_samples
from data.emoji_captions import captions_of, describe_tones
from data.emoji_names import aliases_of, name_of, with_article
from data.emoji_pictures import drop_borrowed, drop_copies, load_pictures
from data.emoji_splits import SPLITS, image_id_of, split_group, split_of
from data.shard_writer import Sample, write_shards
from data.shards import RawSample, iterate_shards

SHARDS = Path(__file__).parents[2] / "assets" / "emoji"
SKIN_TONES = ["1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"]


def entry(unified: str, name: str, short_names: str = "", subcategory: str = "other", tones: bool = False) -> dict:
    variants = {tone: {"unified": f"{unified}-{tone}", "image": f"{unified}-{tone}.png"} for tone in SKIN_TONES}
    return {
        "unified": unified,
        "name": name,
        "image": f"{unified}.png",
        "short_name": short_names.split()[0] if short_names else "x",
        "short_names": short_names.split(),
        "category": "Symbols",
        "subcategory": subcategory,
        "skin_variations": variants if tones else {},
    }


# Names and captions


@pytest.mark.parametrize(
    ("name", "subcategory", "expected"),
    [
        ("RED APPLE", "food-fruit", "red apple"),
        ("WAVING HAND SIGN", "hand-fingers-open", "waving hand"),
        ("United States Flag", "country-flag", "flag of united states"),
        ("Côte d’Ivoire Flag", "country-flag", "flag of cote d'ivoire"),
        ("St. Kitts & Nevis Flag", "country-flag", "flag of saint kitts and nevis"),
        ("Congo - Kinshasa Flag", "country-flag", "flag of congo kinshasa"),
        ("CLOCK FACE THREE OCLOCK", "time", "clock showing three o'clock"),
        ("CLOCK FACE TEN-THIRTY", "time", "clock showing half past ten"),
        ("FAMILY: MAN, WOMAN, BOY, BOY", "family", "family with a man, a woman and two boys"),
        ("WOMAN: CURLY HAIR", "person", "woman with curly hair"),
        ("SQUARED COOL", "alphanum", "cool button"),
        ("LEO", "zodiac", "leo zodiac sign"),
        ("WOMANS HAT", "clothing", "woman's hat"),
    ],
)
def test_names(name: str, subcategory: str, expected: str):
    assert name_of(entry("FFFF", name, subcategory=subcategory), "ffff") == expected


def test_written_names_replace_the_packages():
    assert name_of(entry("2764-FE0F", "HEAVY BLACK HEART"), "2764") == "red heart"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red apple", "a red apple"),
        ("umbrella", "an umbrella"),
        ("unicorn face", "a unicorn face"),
        ("hourglass", "an hourglass"),
        ("european castle", "a european castle"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("grapes", "grapes"),
        ("bread", "bread"),
        ("woman running", "a woman running"),
        ("people hugging", "people hugging"),
        ("nest with eggs", "a nest with eggs"),
        ("cactus", "a cactus"),
        ("two women holding hands", "two women holding hands"),
    ],
)
def test_articles(name: str, expected: str):
    assert with_article(name) == expected


def test_aliases_help_or_are_left_out():
    assert aliases_of(entry("1F385", "FATHER CHRISTMAS", "santa"), "santa claus") == ["santa"]
    assert aliases_of(entry("1F389", "PARTY POPPER", "tada"), "party popper") == []
    assert aliases_of(entry("1F415", "DOG", "dog2"), "dog") == []
    assert aliases_of(entry("X", "Japan Flag", "flag-jp"), "flag of japan") == ["japan flag"]


def test_captions_say_style_subject_and_tone():
    assert captions_of("red apple", ["apple"], "3d", None) == [
        "red apple, 3d style",
        "a red apple, 3d style",
        "a 3d emoji of a red apple",
        "3d style red apple",
        "a red apple in 3d style",
        "apple, 3d style",
        "a 3d emoji of an apple",
    ]
    toned = captions_of("waving hand", [], "flat", describe_tones(["1f3fd"]))
    assert toned[0] == "waving hand, medium skin tone, flat style"
    assert toned[2] == "a flat emoji of a waving hand with medium skin tone"
    assert describe_tones(["1f3ff", "1f3fb"]) == "dark and light"
    assert describe_tones(["1f3ff", "1f3ff"]) == "dark"
    assert "woman with veil with" not in " ".join(captions_of("woman with veil", [], "3d", "dark"))


# Splits and pictures


def test_near_copies_share_a_split():
    assert split_group("1f469-200d-1f680") == split_group("1f9d1-200d-1f680") != split_group("1f680")
    assert split_group("1f3c3-200d-2640-200d-27a1") == split_group("1f3c3")
    assert split_group("1f34e") != split_group("1f34f")


def test_split_shares():
    concepts = [f"{number:x}" for number in range(5000)]
    splits = Counter(split_of(concept, style, True) for concept in concepts for style in ("flat", "3d"))
    assert splits["unseen_concept"] / 10_000 == pytest.approx(0.05, abs=0.01)
    assert splits["unseen_style"] / 5_000 == pytest.approx(0.10, abs=0.015)
    assert all(split_of(concept, "flat", False) != "unseen_style" for concept in concepts)
    assert image_id_of("1f34e-3d") == image_id_of("1f34e-3d") != image_id_of("1f34e-flat")


def solid(color) -> Image.Image:
    return Image.new("RGB", (64, 64), color)


def test_pictures_are_joined_by_code_point_and_tones_put_right(tmp_path: Path):
    (tmp_path / "img/google/64").mkdir(parents=True)
    (tmp_path / "assets").mkdir()
    entries = [entry("00A9-FE0F", "COPYRIGHT SIGN"), entry("1F44E", "THUMBS DOWN SIGN", tones=True)]
    for item in entries:
        for variant in [item, *item["skin_variations"].values()]:
            solid("white").save(tmp_path / "img/google/64" / variant["image"])
    solid("blue").save(tmp_path / "assets/a9-fe0f.webp", lossless=True)
    solid("red").save(tmp_path / "assets/1f44e-1f3fd.webp", lossless=True)
    solid("green").save(tmp_path / "assets/ffff.webp", lossless=True)
    pictures, num_unnamed = load_pictures(entries, tmp_path, tmp_path)
    assert num_unnamed == 1
    with pytest.raises(FileNotFoundError, match="no picture"):
        load_pictures(entries, tmp_path, tmp_path / "img")
    assert pictures["00a9", "3d"].getpixel((0, 0)) == (0, 0, 255)
    assert ("1f44e-1f3fd", "3d") not in pictures
    assert pictures["1f44e-1f3fc", "3d"].getpixel((0, 0)) == (255, 0, 0)  # medium and medium-light change places


def test_copies_and_borrowed_pictures_are_dropped():
    pictures = {("b", "flat"): solid("red"), ("a-x", "flat"): solid("red"), ("c", "flat"): solid("blue")}
    pictures |= {("a-x", "3d"): solid("red"), ("b", "3d"): solid("green")}
    assert drop_copies(pictures) == [("a-x", "flat")]
    assert ("a-x", "3d") in pictures  # another style is no copy
    assert drop_borrowed(pictures, [entry("B", "B Flag", subcategory="country-flag")]) == 1
    assert ("b", "3d") not in pictures and ("b", "flat") in pictures


def test_shards_are_reproducible_and_names_must_differ(tmp_path: Path):
    samples = [Sample(f"{number}-flat", "train", solid((number, 0, 0)), {"caption": "x"}) for number in range(3)]
    (tmp_path / "one").mkdir()
    for name in ("train-000001", "mine-000000", "train"):
        (tmp_path / "one" / f"{name}.tar.gz").touch()
    for name in ("one", "two"):
        write_shards(samples, tmp_path / name, ["train"], 1250, "tar.gz")
    one, two = (tmp_path / name / "train-000000.tar.gz" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    left = {path.name for path in one.parent.iterdir()}  # of its own kind none from before, of others all
    assert left == {"mine-000000.tar.gz", "train.tar.gz", one.name}
    assert [sample.key for sample in iterate_shards(one)] == ["0-flat", "1-flat", "2-flat"]
    twins = [entry("A", "SAME NAME"), entry("B", "SAME NAME")]
    with pytest.raises(ValueError, match="share a canonical caption: same name, flat style"):
        collect_samples(twins, {("a", "flat"): solid("red"), ("b", "flat"): solid("blue")})


# The assets


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[RawSample]]:
    return {split: list(iterate_shards(str(SHARDS / f"{split}-*.tar.gz"))) for split in SPLITS}


def test_size_and_counts(shipped):
    assert sum(path.stat().st_size for path in SHARDS.iterdir()) <= 15_000_000
    assert {split: len(samples) for split, samples in shipped.items()} == {
        "train": 6148,
        "unseen_concept": 330,
        "unseen_style": 406,
    }
    everything = [sample for samples in shipped.values() for sample in samples]
    assert all(sample.image.size == (64, 64) and sample.image.mode == "RGB" for sample in everything)
    for value in ("caption", "image_id"):
        assert len({sample.metadata[value] for sample in everything}) == len(everything)
    assert len({sample.key for sample in everything}) == len(everything)


def test_every_caption_names_style_and_tone(shipped):
    for sample in (sample for samples in shipped.values() for sample in samples):
        metadata = sample.metadata
        assert sample.key.endswith(f"-{metadata['style']}") and metadata["captions"][0] == metadata["caption"]
        assert len(metadata["captions"]) == len(set(metadata["captions"])) >= 3
        for caption in metadata["captions"]:
            assert metadata["style"] in caption.split()
            assert caption == caption.lower() and caption.isascii() and "  " not in caption
            assert any(name in caption for name in (metadata["name"], *metadata["aliases"]))
            assert metadata["skin_tone"] is None or f"{metadata['skin_tone']} skin tone" in caption


def test_splits_hold_out_concepts_and_styles(shipped):
    shown = {split: {(s.metadata["concept"], s.metadata["style"]) for s in shipped[split]} for split in SPLITS}
    concepts = {split: {concept for concept, _ in pairs} for split, pairs in shown.items()}
    assert not concepts["unseen_concept"] & (concepts["train"] | concepts["unseen_style"])
    assert not shown["unseen_style"] & shown["train"]
    assert concepts["unseen_style"] <= concepts["train"]
    num_concepts = len(set.union(*concepts.values()))
    assert len(concepts["unseen_concept"]) / num_concepts == pytest.approx(0.05, abs=0.01)
    assert len(concepts["unseen_style"]) / num_concepts == pytest.approx(0.10, abs=0.02)


def test_darker_tones_are_darker_pictures_in_both_styles(shipped):
    brightness = defaultdict(dict)
    for sample in (sample for samples in shipped.values() for sample in samples):
        if sample.metadata["skin_tone"] in ("medium-light", "medium", "medium-dark"):
            key = sample.metadata["concept"], sample.metadata["style"]
            brightness[key][sample.metadata["skin_tone"]] = np.asarray(sample.image).mean()
    for style in ("flat", "3d"):
        complete = [tones for (_, s), tones in brightness.items() if s == style and len(tones) == 3]
        ordered = [tones["medium-light"] > tones["medium"] > tones["medium-dark"] for tones in complete]
        assert len(ordered) > 250 and np.mean(ordered) > 0.99
