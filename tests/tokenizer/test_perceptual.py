"""LPIPS against the formula of its paper, on a VGG16 of random weights; absent and wrong files are named."""

import os
from pathlib import Path

import lpips
import pytest
import torch
from torchvision.models import vgg16

from tokenizer.losses import TokenizerLossConfig
from tokenizer.perceptual import build_lpips

TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of torchvision's `features`


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    features = vgg16().features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in features.items()}, path)
    return path


def test_lpips_is_the_weighted_distance_of_unit_features(weights):
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    network = vgg16().features.eval()
    network.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(weights).items()})
    linear = torch.load(Path(lpips.__file__).parent / "weights/v0.1/vgg.pth", map_location="cpu")
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    x_features, y_features = (x - shift) / scale, (y - shift) / scale
    expected = torch.zeros(2)
    for i, layer in enumerate(network):
        x_features, y_features = layer(x_features), layer(y_features)
        if i in TAPS:
            unit = [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x_features, y_features)]
            weight = linear[f"lin{TAPS.index(i)}.model.1.weight"][0]  # float[ch, 1, 1]
            expected += ((unit[0] - unit[1]).square() * weight).sum(1).mean((1, 2))
    metric = build_lpips(str(weights))
    torch.testing.assert_close(metric(x, y).flatten(), expected)
    assert not any(p.requires_grad for p in metric.parameters())


def test_weights_that_are_absent_or_foreign_are_named(weights, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist.*loss\.perceptual=0"):
        build_lpips(str(tmp_path / "nowhere.pth"))
    torch.save({"features.0.bias": torch.zeros(64)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold torchvision's VGG16"):
        build_lpips(str(tmp_path / "other.pth"))
    for content in (b"", b"<html>", weights.read_bytes()[:-9999]):
        (tmp_path / "other.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.pth does not hold torchvision's VGG16, or is damaged"):
            build_lpips(str(tmp_path / "other.pth"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=r"TORCH_HOME/hub/checkpoints"):
        build_lpips(TokenizerLossConfig().perceptual_weights)
    assert not os.path.exists(tmp_path / "empty/hub/checkpoints/vgg16-397923af.pth")
