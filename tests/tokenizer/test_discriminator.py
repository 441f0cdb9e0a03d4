"""The discriminator against the released architecture written out, and the formulas of its losses by hand."""

import pytest
import torch
import torch.nn.functional as F

from tokenizer.discriminator import AdversarialConfig, PatchDiscriminator, adaptive_weight, hinge_loss


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator()


def test_it_is_the_released_architecture(discriminator):
    images, weights = torch.randn(2, 3, 24, 24), iter(discriminator.state_dict().values())
    x = F.leaky_relu(F.conv2d(images, next(weights), next(weights), stride=2, padding=1), 0.2)
    for width, stride in ((128, 2), (256, 2), (512, 1)):
        h = F.leaky_relu(F.group_norm(x, 32, next(weights), next(weights), eps=1e-6), 0.2)
        h = F.conv2d(h, next(weights), next(weights), stride=stride, padding=1)
        resized = torch.nn.Upsample(size=h.shape[2:], mode="bilinear")(x)
        x = h + F.conv2d(resized, next(weights), next(weights))
        assert x.shape[1] == width
    expected = F.conv2d(x, next(weights), next(weights), padding=1)
    torch.testing.assert_close(discriminator(images), expected)
    assert expected.shape == (2, 1, 3, 3) and next(weights, None) is None


def test_a_score_does_not_depend_on_the_batch(discriminator):
    images = torch.randn(3, 3, 16, 16)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone)


def test_the_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    # real: 1 − 2 = −1 leaks −0.01, 1 − 0 = 1; fake: 1 − 3 = −2 leaks −0.02, 1 + 1 = 2
    assert hinge_loss(real, fake).item() == pytest.approx(((-0.01 + 1) / 2 + (-0.02 + 2) / 2) / 2)


def test_the_adaptive_weight_is_a_ratio_of_norms_within_limits():
    config = AdversarialConfig()
    large, small = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert adaptive_weight(large, small, config).item() == pytest.approx(5 / 2.0001)
    assert adaptive_weight(small * 1e-3, large, config).item() == pytest.approx(config.min_adaptive)
    assert adaptive_weight(large, small * 0, config).item() == config.max_adaptive
