"""The FID network against torchvision's own blocks, and each protocol's way of scaling against its formula.

Features and inputs were also compared with pytorch-fid 0.3, torch-fidelity 0.4, clean-fid 0.1.35 and OpenCV's JPEG, on
random weights and pictures: equal to the last bit. Their packages are no dependencies of the tests.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models import inception

from eval import fid
from eval.inception import _BlockA, _LastBlockE, fid_inception, load_fid_inception


def picture(height: int = 40, width: int = 60) -> torch.Tensor:
    """float[1, 3, h, w] of noise on 256 levels."""
    values = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0))
    return values / 127.5 - 1


@torch.no_grad()
def test_average_pools_count_the_picture_alone():
    ours, theirs = _BlockA(4, 8).eval(), inception.InceptionA(4, 8).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(1, 4, 5, 5)
    a, b = ours(x), theirs(x)
    assert torch.equal(a[:, :-8], b[:, :-8]) and torch.allclose(a[:, :, 1:-1, 1:-1], b[:, :, 1:-1, 1:-1])
    corner = x[:, :, :2, :2].mean(dim=(2, 3), keepdim=True)  # four pixels, not nine of which five are padding
    torch.testing.assert_close(a[:, -8:, :1, :1], ours.branch_pool(corner))
    assert not torch.allclose(a[:, -8:, 0, 0], b[:, -8:, 0, 0])


@torch.no_grad()
def test_the_last_block_pools_by_maximum():
    block = _LastBlockE(4).eval()
    x = torch.rand(1, 4, 3, 3)
    expected = block.branch_pool(x.amax(dim=(2, 3), keepdim=True))  # the middle sees all nine
    torch.testing.assert_close(block(x)[:, -192:, 1:2, 1:2], expected)


@torch.no_grad()
def test_weights_are_those_of_the_port_and_features_what_the_classifier_sees(tmp_path):
    net = fid_inception().eval()
    theirs = inception.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    loaded = load_fid_inception(tmp_path / "weights.pth")
    features = loaded(fid.clean(picture()))
    assert features.shape == (1, 2048) and not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(net.fc(features), net(fid.clean(picture())))


def test_without_the_file_there_is_no_fid(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.pth: download pt_inception-2015-12-05"):
        fid.FidFeatures(str(tmp_path / "none.pth"), ["clean"])
    with pytest.raises(ValueError, match="no FID protocol 'dirty': choose among clean, pytorch-fid"):
        fid.FidFeatures(str(tmp_path / "none.pth"), ["dirty"])
    (tmp_path / "text.pth").write_text("not weights")
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "other.pth")
    for name in ("text.pth", "other.pth"):
        with pytest.raises(ValueError, match=rf"{name} is not pt_inception-2015-12-05"):
            load_fid_inception(tmp_path / name)


@pytest.mark.parametrize("name", fid.PROTOCOLS)
def test_a_plain_picture_stays_plain(name):
    grey = torch.full((1, 3, 16, 24), 100 / 127.5 - 1)
    scale, centre = (127.5, 127.5) if name == "pytorch-fid" else (128, 128)
    result = fid.PROTOCOLS[name](grey)
    assert result.shape == (1, 3, 299, 299)
    torch.testing.assert_close(result, torch.full_like(result, (100 - centre) / scale))


def test_clean_smooths_in_floating_point_and_keeps_the_range():
    x = picture(600, 600)
    result = fid.clean(x) * 128 + 128
    assert result.frac().any() and result.min() >= 0 and result.max() <= 255  # not rounded to levels
    assert result.std() < 0.6 * (x * 127.5).std()  # antialiased: half the size averages neighbours
    edges = fid.clean(torch.tensor([-1.0, 1.0]).repeat(8).expand(1, 3, 16, 16)) * 128 + 128
    assert edges.min() == 0 and edges.max() == 255  # bicubic overshoots, and is cut


def test_pytorch_fid_takes_two_neighbours_at_half_pixel_centres():
    x = picture(600, 600)
    result = fid.pytorch_fid(x)
    place = (37 + 0.5) * 600 / 299 - 0.5
    low, weight = math.floor(place), place - math.floor(place)
    row = x[0, :, low] * (1 - weight) + x[0, :, low + 1] * weight
    torch.testing.assert_close(result[0, :, 37, 37], row[:, low] * (1 - weight) + row[:, low + 1] * weight)


def test_torch_fidelity_starts_at_the_corner():
    x = picture(40, 60)
    result = fid.torch_fidelity(x) * 128 + 128
    values = (x[0] + 1) * 127.5
    torch.testing.assert_close(result[0, :, 0, 0], values[:, 0, 0])
    y, x_ = 100 * 40 / 299, 200 * 60 / 299
    (top, down), (left, right) = divmod(y, 1), divmod(x_, 1)
    patch = values[:, int(top) : int(top) + 2, int(left) : int(left) + 2]
    rows = patch[:, 0] * (1 - down) + patch[:, 1] * down
    torch.testing.assert_close(result[0, :, 100, 200], rows[:, 0] * (1 - right) + rows[:, 1] * right, atol=1e-3, rtol=0)
    torch.testing.assert_close(result[0, :, 298, 298], values[:, -1, -1], atol=1e-3, rtol=0)  # clamped at the far end


def test_dualtoken_jpeg_cuts_and_compresses(tmp_path):
    x = F.interpolate(picture(4, 4), (32, 32), mode="bicubic").clamp(-1, 1)
    Image.fromarray(((x[0] + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as file:
        saved = torch.frombuffer(bytearray(file.tobytes()), dtype=torch.uint8).view(1, 32, 32, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(fid.dualtoken_jpeg(x), fid.clean(saved / 127.5 - 1))
    almost = torch.full((1, 3, 16, 16), 100.9 / 127.5 - 1)
    assert (fid.dualtoken_jpeg(almost) * 128 + 128).mean().item() == pytest.approx(100, abs=1e-3)
    assert (fid.clean(almost) * 128 + 128).mean().item() == pytest.approx(101, abs=1e-3)
