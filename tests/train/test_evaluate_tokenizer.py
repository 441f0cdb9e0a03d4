"""`eval-tokenizer` on a folder of pictures like ImageNet's: every figure against a plain pass, ranks, kills, mistakes.

The networks of FID and LPIPS are replaced by small ones: there are no weights here, and Inception has its own tests.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dualtoken
from data.image_batches import ImageSet
from data.images import ImageTransform
from eval import fid, measure
from eval.frechet import Moments, frechet_distance
from eval.inception import load_fid_inception
from eval.judge import Judge
from eval.reconstruction import from_pixel_values, score
from tests.train.tiny_mllm import run_ranks
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.perceptual import build_lpips
from train.evaluate_tokenizer import EvaluateTokenizerConfig, FidConfig, Flickr8kConfig, main
from train.train_tower import TrainTowerConfig, TransformerSize, build_siglip, save_tower, train_text_tokenizer

SYNSETS = {"n01": "red dot", "n02": "green dot", "n03": "blue dot"}
NUM_IMAGES = 11
SIZE = TransformerSize(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


def small_network(path: str) -> nn.Module:
    """In the place of Inception: the colours of four regions."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


class SmallPerceptual(nn.Module):
    """In the place of LPIPS: the mean squared difference."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).square().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tower/, tokenizer/, val/SYNSET/*.png, flickr/*.jpg, and the text files."""
    folder = tmp_path_factory.mktemp("evaluation")
    config = TrainTowerConfig(
        out=str(folder), image_size=16, patch_size=4, vision=SIZE, text=SIZE, text_length=12, vocabulary_size=60
    )
    torch.manual_seed(0)
    names = train_text_tokenizer([f"a photo of a {name}, big and small" for name in SYNSETS.values()] * 3, config)
    save_tower(build_siglip(config, len(names)), names, config, folder / "tower")
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=2)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1, 1], num_res_blocks=1)
    sizes = TokenizerConfig(
        tower=str(folder / "tower"),
        pixel_layer=1,
        semantic_layer=2,
        pixel=quantizer,
        semantic=quantizer,
        decoder=decoder,
    )
    DualTokenizer.from_tower(sizes).freeze().save_pretrained(str(folder / "tokenizer"))
    rng = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        picture = Image.fromarray(rng.integers(256, size=(20 + i, 24, 3), dtype=np.uint8))
        path = folder / "val" / sorted(SYNSETS)[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        if i < 4:
            (folder / "flickr").mkdir(exist_ok=True)
            picture.save(folder / "flickr" / f"{i}.jpg")
    (folder / "classes.txt").write_text("".join(f"{label}\t{name}\n" for label, name in SYNSETS.items()))
    (folder / "templates.txt").write_text("a photo of a {}.\na big {}.\n")
    lines = [f"{i}.jpg,a {name}, number {i}" for i in range(4) for name in SYNSETS.values()]
    (folder / "captions.txt").write_text("\n".join(["image,caption", *lines]))
    (folder / "weights.pth").touch()
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateTokenizerConfig:
    monkeypatch.setattr(fid, "load_fid_inception", small_network)
    monkeypatch.setattr(measure, "build_lpips", lambda weights: SmallPerceptual())
    return EvaluateTokenizerConfig(
        out=str(tmp_path / "run"),
        tokenizer=str(folder / "tokenizer"),
        tower=str(folder / "tower"),
        images=str(folder / "val"),
        label="folder",
        classes=str(folder / "classes.txt"),
        templates=str(folder / "templates.txt"),
        flickr8k=Flickr8kConfig(captions=str(folder / "captions.txt"), images=str(folder / "flickr")),
        fid=FidConfig(weights=str(folder / "weights.pth"), protocols=["clean", "dualtoken-jpeg"]),
        batch_size=2,
        part_size=3,
        precision="fp32",
    )


def figures(config: EvaluateTokenizerConfig) -> dict:
    result = json.loads(Path(config.out, "result.json").read_text())
    assert result.pop("seconds") > 0
    return result


def test_the_judge_is_of_single_precision_and_sees_other_sizes(folder, tmp_path):
    exact = Judge(str(folder / "tower"))
    exact.model.bfloat16().save_pretrained(tmp_path)
    exact.tokenizer.save_pretrained(tmp_path)
    judge, larger = Judge(str(tmp_path)), torch.rand(2, 3, 24, 24) * 2 - 1
    assert judge.images(larger).dtype == torch.float32
    assert judge.distance(larger, larger).tolist() == [0, 0]
    assert not torch.allclose(judge.images(larger)[0], judge.images(larger)[1])


@torch.no_grad()
def test_every_figure_is_that_of_a_plain_pass(config, capsys):
    main(replace(config, lpips=True))
    result = figures(config)
    tokenizer, judge = DualTokenizer.from_pretrained(config.tokenizer), Judge(config.tower)
    images = ImageSet(config.images, ImageTransform(16))
    x = images.batch(list(range(NUM_IMAGES))).pixel_values
    codes = tokenizer.encode(x)
    decoded = tokenizer.decode(codes.pixel)

    expected = score([(from_pixel_values(x), from_pixel_values(decoded))])
    lpips = np.mean([4 * 10 ** (-row["psnr"] / 10) for row in expected["per_image"]])  # of pictures on [−1, 1], 8 bits
    same = {"psnr": expected["psnr"], "ssim": expected["ssim"], "lpips": lpips, "images": NUM_IMAGES, "skipped": 0}
    assert result["reconstruction"] == pytest.approx(same, abs=1e-4)
    rows = [json.loads(line) for line in Path(config.out, "per_image.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [metadata["key"] for metadata in images.metadata]
    assert [row["psnr"] for row in rows] == pytest.approx([row["psnr"] for row in expected["per_image"]], abs=1e-3)
    for name in config.fid.protocols:
        sides = [Moments.of(small_network("")(fid.PROTOCOLS[name](pictures)).numpy()) for pictures in (x, decoded)]
        assert result["rfid"][name] == pytest.approx(frechet_distance(*sides), rel=1e-3)
    assert result["rfid"]["clean"] != result["rfid"]["dualtoken-jpeg"]
    assert result["codebook_usage"]["pixel"] == codes.pixel.unique().numel() / 8

    texts = [judge.texts([f"a photo of a {name}.", f"a big {name}."]).mean(0) for name in SYNSETS.values()]
    classes = nn.functional.normalize(torch.stack(texts), dim=-1)
    labels = torch.tensor([sorted(SYNSETS).index(m["key"].split("/")[0]) for m in images.metadata])
    quantized = nn.functional.normalize(tokenizer.pooled_features(codes.semantic), dim=-1)
    for name, features in (("quantized", quantized), ("tower", judge.images(x))):
        hits = (features @ classes.T).argmax(1) == labels
        assert result["zero_shot"][name] == pytest.approx(hits.float().mean().item())
    assert result["zero_shot"]["classes"] == 3 and result["zero_shot"]["quantized_top5"] == 1
    assert "retrieval" not in result  # ImageNet has no captions
    assert (result["flickr8k"]["images"], result["flickr8k"]["captions"]) == (4, 12)
    for name in ("quantized", "tower"):
        assert result["flickr8k"][name]["text_to_image"]["recall@5"] == 1  # of four pictures
        assert 0 <= result["flickr8k"][name]["image_to_text"]["recall@1"] <= 1
    sheet = Image.open(Path(config.out, "samples/best-and-worst.png"))
    assert sheet.width > sheet.height > 0 and Path(config.out, "samples/reconstructions.png").exists()
    assert "written to" in capsys.readouterr().out


def in_rank(config: EvaluateTokenizerConfig) -> None:
    fid.load_fid_inception = small_network
    main(config)


def test_two_ranks_and_a_stopped_run_end_with_the_same_figures(config, tmp_path, monkeypatch):
    main(config)
    alone = figures(config)
    together = replace(config, out=str(tmp_path / "two"))
    run_ranks(in_rank, 2, together)
    assert figures(together) == alone
    for name in ("per_image.jsonl", "samples/best-and-worst.png"):
        assert Path(together.out, name).read_bytes() == Path(config.out, name).read_bytes()

    parts = Path(together.out, "parts")
    Path(together.out, "result.json").unlink()  # as if it had been killed before the third part was whole
    (parts / "00002.safetensors").rename(parts / "00002.partial")
    measured, original = [], measure.Instruments.measure
    monkeypatch.setattr(measure.Instruments, "measure", lambda self, x: measured.append(len(x)) or original(self, x))
    main(together)
    assert sum(measured) == 3 and figures(together) == alone

    measured.clear()
    main(replace(together, batch_size=3))  # rounding depends on the batch: everything is measured again
    assert sum(measured) == NUM_IMAGES


def test_bad_pictures_are_counted_or_too_many(config, tmp_path):
    pictures = tmp_path / "val/n01"
    pictures.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (16, 16), (60 * i, 0, 99)).save(pictures / f"{i}.png")
    for name in ("4.png", "5.png", "6.png"):  # the whole last part, and one of the part before
        (pictures / name).write_bytes((pictures / "0.png").read_bytes()[:40])
    some = replace(config, images=str(tmp_path / "val"), fid=FidConfig(), flickr8k=Flickr8kConfig(), part_size=2)
    with pytest.raises(ValueError, match=r"3 of 7 pictures of .* could not be read, more than the allowed share of 0"):
        main(some)
    main(replace(some, limit_bad_share=0.5, label=None))
    result = figures(some)
    assert (result["reconstruction"]["images"], result["reconstruction"]["skipped"]) == (4, 3)
    assert not {"rfid", "flickr8k", "zero_shot"} & set(result)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "fid.weights=no/inception.pth",
            "FID needs the Inception weights of 2015 and there is no file no/inception.",
        ),
        ("lpips=true lpips_weights=no/vgg.pth", "LPIPS needs torchvision's VGG16 weights, which are not in no/vgg.pth"),
        ("label=wnid", "no picture has a class that is described, under the label 'wnid'"),
        ("images=no/such-folder", "no shard or folder matches no/such-folder"),
        ("flickr8k.captions=no/captions.txt", "no/captions.txt does not exist"),
        ("templates=no/templates.txt", "no/templates.txt does not exist"),
        ("fid.protocols=[cleaned]", "there is no FID protocol 'cleaned'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(config, folder, tmp_path, monkeypatch, capsys, override, message):
    monkeypatch.setattr(fid, "load_fid_inception", load_fid_inception)
    monkeypatch.setattr(measure, "build_lpips", build_lpips)
    path = tmp_path / "config.yaml"
    names = ("out", "tokenizer", "tower", "images", "label", "classes", "templates", "batch_size")
    path.write_text("".join(f"{name}: {getattr(config, name)}\n" for name in names))
    if "protocols" in override:
        override += f" fid.weights={folder}/weights.pth"
    assert dualtoken.main(["eval-tokenizer", str(path), *override.split()]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dualtoken: error: ") and message in error
