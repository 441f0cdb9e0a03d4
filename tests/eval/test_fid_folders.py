"""FID and MJHQ of folders of pictures, with a small network in the place of Inception: what files become is ours."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eval import fid, fid_sides
from eval.frechet import Moments, frechet_distance
from tests.eval.scorer_inputs import run

SIZES = [(20, 24), (20, 24), (20, 24), (31, 17), (20, 24), (40, 40)]  # neighbours of one size share a batch


def small_network(path):
    """The colours of four regions."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """reference/ and images/, each with art/ and food/ of six pictures in several formats; weights.pth."""
    monkeypatch.setattr(fid, "load_fid_inception", small_network)
    monkeypatch.setattr(fid_sides, "_BATCH", 2)
    rng = np.random.default_rng(0)
    for side, lowest in (("reference", 0), ("images", 60)):
        for category in ("art", "food"):
            folder = tmp_path / side / category
            folder.mkdir(parents=True)
            for i, size in enumerate(SIZES):
                pixels = rng.integers(lowest, 256, size=(*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.{('png', 'bmp', 'jpg')[i % 3]}")
            (folder / "notes.txt").write_text("no picture")
    (tmp_path / "weights.pth").touch()
    return tmp_path


def one_by_one(folder, protocol):
    rows = []
    for path in sorted(folder.rglob("[0-9]*")):
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        rows.append(small_network("")(fid.PROTOCOLS[protocol](pixels))[0].numpy())
    return np.stack(rows)


def call(scorer, folder, protocol="clean"):
    weights = ("--inception-weights", folder / "weights.pth", "--protocol", protocol)
    return run(scorer, "--reference", folder / "reference", "--images", folder / "images", *weights)


@pytest.mark.parametrize("protocol", fid_sides.PROTOCOLS)
def test_fid_is_that_of_the_pictures_one_by_one(folders, protocol):
    result = call("fid", folders, protocol)
    features = [one_by_one(folders / side, protocol) for side in ("reference", "images")]
    assert result["fid"] == pytest.approx(frechet_distance(*map(Moments.of, features)), abs=1e-9)
    assert (result["num_reference"], result["num_images"], result["dimensions"]) == (12, 12, 12)
    other_size = {"pictures_not_of_the_protocols_384_pixels": 24} if protocol == "dualtoken-jpeg" else {}
    assert result["warnings"] == {"fewer_images_than_dimensions": 12, **other_size}
    counts = {"24×20": 8, "17×31": 2, "40×40": 2}
    assert result["sizes"] == {"reference": counts, "images": counts}
    assert protocol in result["protocol"]


def test_the_commands_protocols_are_those_of_the_network():
    assert set(fid_sides.PROTOCOLS) == set(fid.PROTOCOLS)


def test_rows_are_in_the_order_of_the_files(folders):
    extract = fid_sides.Extractor("weights.pth", "pytorch-fid")
    paths = sorted((folders / "images/art").glob("[0-9]*"))
    expected = one_by_one(folders / "images/art", "pytorch-fid")
    np.testing.assert_allclose(extract(paths, "images"), expected, atol=1e-6)
    np.testing.assert_allclose(extract(paths[::-1], "images"), expected[::-1], atol=1e-6)


def test_mjhq_takes_categories_from_folders(folders):
    result = call("mjhq", folders)
    for name in ("art", "food"):
        features = [one_by_one(folders / side / name, "clean") for side in ("reference", "images")]
        expected = frechet_distance(*map(Moments.of, features))
        assert result["per_category"][name] == pytest.approx(expected, abs=1e-9)
    whole = call("fid", folders)
    assert result["fid"] == pytest.approx(whole["fid"], abs=1e-9) and result["sizes"] == whole["sizes"]
    assert call("mjhq", folders, "dualtoken-jpeg")["warnings"]["pictures_not_of_the_protocols_384_pixels"] == 24
    (folders / "images/art/2.jpg").rename(folders / "images/2.jpg")
    with pytest.raises(ValueError, match="is in no folder of a category"):
        call("mjhq", folders)
    (folders / "images/2.jpg").unlink()
    (folders / "images/food").rename(folders / "images/drinks")
    with pytest.raises(ValueError, match="lacks 1 of the ids"):
        call("mjhq", folders)


def test_a_broken_picture_is_named(folders):
    path = folders / "images/food/3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"3\.png"):
        call("fid", folders)


def test_folders_without_weights_or_pictures_are_an_error(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        weights = ("--inception-weights", folders / "weights.pth")
        run("fid", "--reference", tmp_path / "empty", "--images", folders / "images", *weights)
    with pytest.raises(ValueError, match="needs --inception-weights"):
        run("fid", "--reference", folders / "reference", "--images", folders / "images")
