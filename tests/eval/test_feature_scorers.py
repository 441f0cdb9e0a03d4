"""The commands that read features or pictures: figures by hand, and files that do not fit."""

import argparse

import numpy as np
import pytest
from PIL import Image

from eval import score


def run(*arguments):
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args([*map(str, arguments)]))


def test_zeroshot_normalises_each_text_before_and_after_the_mean(tmp_path):
    # Class 0: (10, 0) and (0, 1) mean (1, 1)/√2, not nearly (1, 0). Class 1: (1, 0.1) twice.
    texts = np.array([[[10, 0], [0, 1]], [[1, 0.1], [1, 0.1]]])
    images = np.array([[5, 0.0], [0.2, 0.2], [1, 0]])
    np.savez(tmp_path / "f.npz", image_features=images, labels=[1, 0, 0], template_text_features=texts)
    result = run("zeroshot", "--features", tmp_path / "f.npz")
    assert (result["top1"], result["top5"]) == (pytest.approx(2 / 3), 1)


def test_retrieval_counts_any_caption(tmp_path):
    np.savez(tmp_path / "f.npz", image=np.eye(2), text=np.array([[1, 0], [0, 1], [0.9, 1]]), text_image_index=[0, 1, 0])
    result = run("retrieval", "--features", tmp_path / "f.npz")
    assert result["image_to_text"]["recall@1"] == 1
    assert result["text_to_image"]["recall@1"] == pytest.approx(2 / 3)


def test_fid_and_mjhq_by_hand(tmp_path):
    points = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    np.savez(tmp_path / "a.npz", features=points, category=["x", "x", "y", "y"])
    np.savez(tmp_path / "b.npz", features=points + np.array([3, 4]), category=["x", "x", "y", "y"])
    files = ("--reference-features", tmp_path / "a.npz", "--features", tmp_path / "b.npz")
    assert run("fid", *files)["fid"] == pytest.approx(25)
    result = run("mjhq", *files)
    assert result["fid"] == pytest.approx(25) and result["per_category"] == pytest.approx({"x": 25, "y": 25})
    with pytest.raises(ValueError, match="give --reference-features and --features, or"):
        run("fid", "--features", tmp_path / "b.npz")
    with pytest.raises(ValueError, match="needs --inception-weights"):
        run("fid", "--reference", tmp_path, "--images", tmp_path)


def test_clipscore_names_its_backbone(tmp_path):
    arrays = {"image": np.array([[1.0, 0], [1, 0]]), "text": np.array([[2.0, 0], [-1, 0]])}
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ValueError, match="--backbone"):
        run("clipscore", "--features", tmp_path / "f.npz")
    result = run("clipscore", "--features", tmp_path / "f.npz", "--backbone", "ViT-L-14")
    assert (result["clipscore"], result["clipscore_100"], result["backbone"]) == (1.25, 50, "ViT-L-14")


def test_reconstruction_pairs_by_name(tmp_path):
    for folder, level, suffix in (("a", 10, "png"), ("b", 11, "bmp")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (12, 12), (level,) * 3).save(tmp_path / folder / f"x.{suffix}")
        Image.new("RGB", (12, 12), (7,) * 3).save(tmp_path / folder / f"y.{suffix}")
    folders = ("--reference", tmp_path / "a", "--images", tmp_path / "b")
    result = run("reconstruction", *folders, "--json", tmp_path / "out.json")
    assert result["psnr"] == pytest.approx(20 * np.log10(255))
    assert [row["psnr"] for row in result["per_image"]] == [pytest.approx(48.13, abs=0.01), None]
    assert result["warnings"] == {"exact_images_not_in_the_psnr": 1}
    (tmp_path / "b" / "y.bmp").unlink()
    with pytest.raises(ValueError, match="lacks 1 of the pictures"):
        run("reconstruction", *folders)


def test_files_that_do_not_fit_are_one_sentence(tmp_path):
    path = tmp_path / "f.npz"
    for arrays, message in (
        ({"image": np.eye(2)}, "no array 'text'"),
        ({"image": np.eye(2), "text": np.eye(3), "text_image_index": [0, 1, 1]}, "different models"),
        ({"image": np.eye(2), "text": np.eye(2), "text_image_index": [0, 2]}, "0 … 1 are possible"),
        ({"image": np.eye(2) * np.nan, "text": np.eye(2), "text_image_index": [0, 1]}, "NaN or infinity"),
        ({"image": np.zeros((2, 2)), "text": np.eye(2), "text_image_index": [0, 1]}, "zero throughout"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            run("retrieval", "--features", path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a whole"):
        run("retrieval", "--features", path)
