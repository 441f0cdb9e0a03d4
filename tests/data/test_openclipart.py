"""The clip-art builder: names from titles and files, bad pictures named, a build from small packages."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.build_openclipart import ROOT, build
from data.openclipart_names import Described, captions_of, group_of, name_of, read_metadata
from data.shards import iterate_shards

SVG = """<svg><cc:Work rdf:about=""><dc:title>Lime (Whole)</dc:title><dc:creator><cc:Agent><dc:title>Ganson
</dc:title></cc:Agent></dc:creator><dc:subject><rdf:Bag><rdf:li>food</rdf:li><rdf:li>hash</rdf:li>
<rdf:li>0xa10d420</rdf:li><rdf:li></rdf:li><rdf:li>Citrus &amp; co</rdf:li></rdf:Bag></dc:subject></cc:Work></svg>"""


def test_metadata_of_an_svg():
    assert read_metadata(SVG) == Described("Lime (Whole)", "Ganson", ["food", "citrus & co"])
    assert read_metadata("<svg><broken") == Described()


@pytest.mark.parametrize(
    ("path", "described", "name"),
    [
        ("food/lime_ganson.png", Described("Lime (Whole)", "Ganson"), "lime whole"),
        ("computer/2rightarrow.png", Described("Lemon SVG theme"), "2rightarrow"),
        ("tools/desk_lamp_gerald_g._01.png", Described("Lemon SVG theme", "Gerald G."), "desk lamp"),
        ("food/hub.png", Described("Clipart by Nicu Buculei - antenna"), "antenna"),
        ("shapes/stars/star_41pt06step.png", Described("x"), "star with 41 points and step 6"),
        ("games/cards/white/white_d_q.png", Described(), "white playing card queen of diamonds"),
    ],
)
def test_names(path, described, name):
    assert name_of(path, described, {"Lemon SVG theme": 431, described.title: 1} | {"Lemon SVG theme": 431}) == name


def test_captions_and_groups():
    assert captions_of("lime", "food/fruit/lime.png", ["lime", "sour"])[0] == "lime, clip art"
    assert captions_of("lime", "food/fruit/lime.png", ["sour"])[2:] == ["lime (sour), clip art", "fruit: lime"]
    assert group_of("star with 41 points and step 6") == group_of("star with 9 points and step 2")


def test_a_build_names_what_it_leaves_out(tmp_path: Path):
    rng = np.random.default_rng(0)
    for package, kind in (("openclipart-png", "png"), ("openclipart-svg", "svg")):
        folder = tmp_path / package / ROOT / kind / "food"
        folder.mkdir(parents=True)
        control = tmp_path / package / "DEBIAN"
        control.mkdir()
        fields = f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        (control / "control").write_text(fields)
    pictures, drawings = (tmp_path / f"openclipart-{kind}" / ROOT / kind / "food" for kind in ("png", "svg"))
    Image.fromarray(rng.integers(256, size=(30, 20, 3), dtype=np.uint8)).save(pictures / "lime.v1_ganson.png")
    (drawings / "lime.v1_ganson.svg").write_text(SVG)
    (pictures / "z_again.png").write_bytes((pictures / "lime.v1_ganson.png").read_bytes())
    (pictures / "broken.png").write_bytes(b"no picture")
    Image.new("1", (9000, 9000)).save(pictures / "huge.png")
    Image.new("RGB", (30, 30), "white").save(pictures / "blank.png")
    Image.new("RGB", (300, 20), "red").save(pictures / "long.png")
    Image.new("RGB", (3, 3), "red").save(pictures / "tiny.png")
    for package in ("openclipart-png", "openclipart-svg"):
        command = ["dpkg-deb", "-Znone", "-b", package, f"{package}_1_all.deb"]
        if subprocess.run(["sh", "-c", "command -v dpkg-deb"], capture_output=True).returncode:
            pytest.skip("dpkg-deb is not installed")
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    summary = build(tmp_path / "out", 32, tmp_path)
    assert {"1 broken, left out", "1 huge, left out", "1 copy, left out", "1 blank, left out"} <= set(summary)
    (sample,) = iterate_shards(sorted((tmp_path / "out").glob("*.tar")))
    assert (sample.key, sample.caption, sample.image.size) == ("food/lime_v1_ganson", "lime whole, clip art", (32, 32))
    skipped = (tmp_path / "out/skipped.txt").read_text()
    assert "copy\tfood/z_again.png = food/lime.v1_ganson.png" in skipped and skipped.count("\n") == 6
    with pytest.raises(FileNotFoundError, match=r"no openclipart-png_\*\.deb"):
        build(tmp_path / "out", 32, tmp_path / "out")
