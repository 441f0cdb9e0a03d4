import math

import pytest
import torch
from omegaconf import OmegaConf

from heads.sampling import BranchSampling, DrawSettings, SamplingConfig, draw, guide, uniforms

PLAIN = DrawSettings(temperature=1.0, top_k=0, top_p=1.0)


def reference_probabilities(logits: list[float], settings: DrawSettings) -> list[float]:
    """Temperature, then top-k, then top-p, on plain Python numbers."""
    order = sorted(range(len(logits)), key=lambda k: -logits[k])
    if settings.top_k:
        order = order[: settings.top_k]
    mass = {k: math.exp(logits[k] / settings.temperature) for k in order}
    total, kept, reached = sum(mass.values()), [], 0.0
    for k in order:
        if reached < settings.top_p:
            kept.append(k)
            reached += mass[k] / total
    total = sum(mass[k] for k in kept)
    return [mass[k] / total if k in kept else 0.0 for k in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 3, 100])
@pytest.mark.parametrize("top_p", [0.05, 0.6, 1.0])
def test_frequencies_are_the_filtered_probabilities(temperature, top_k, top_p):
    """Uniform numbers at equal distances give each code its share of them, to one draw."""
    settings = PLAIN._replace(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = torch.tensor([0.3, 2.0, -1.0, 1.1, 0.0, -3.0])
    num = 2000
    codes = draw(logits.repeat(num, 1), (torch.arange(num) + 0.5).double() / num, settings)
    frequencies = codes.bincount(minlength=6) / num
    expected = torch.tensor(reference_probabilities(logits.tolist(), settings))
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=1.5 / num)


def test_the_ends_of_the_unit_interval_are_possible_codes():
    logits = torch.tensor([[-math.inf, 1.0, -200.0, 1.0, -math.inf]]).repeat(2, 1)
    assert draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), PLAIN).tolist() == [1, 3]


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-40])
def test_temperature_zero_takes_the_most_probable(temperature):
    logits = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    codes = draw(logits, torch.rand(7, dtype=torch.float64), PLAIN._replace(temperature=temperature))
    assert torch.equal(codes, logits.argmax(1))


def test_guidance():
    conditional, unconditional = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([conditional, unconditional])
    guided = [guide(rows, torch.tensor(cfg)) for cfg in (3.0, 0.0, 1.0)]
    torch.testing.assert_close(guided[0], unconditional + 3 * (conditional - unconditional))
    assert torch.equal(guided[1], unconditional) and torch.equal(guided[2], conditional)


def test_uniform_numbers_belong_to_the_seed():
    together, alone = uniforms([3, 5, 2**63 - 1], 4, 2), uniforms([5], 4, 2)
    assert together.shape == (3, 4, 2) and together.dtype == torch.float64
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_a_codebook_may_differ_from_what_both_share():
    config = SamplingConfig(cfg=3.0, top_k=900, semantic=BranchSampling(cfg=1.0, temperature=0.5))
    assert config.draws("pixel", 2) == [DrawSettings(1.0, 900, 1.0)] * 2
    assert config.draws("semantic", 2) == [DrawSettings(0.5, 900, 1.0)] * 2
    assert config.guidance("pixel", 3).tolist() == [3, 3, 3] and config.guidance("semantic", 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "guided"),
    [
        ({"cfg": 1.0}, False),
        ({"cfg": 0.0}, True),
        ({"cfg": 1.0, "cfg_last": 1.0}, False),
        ({"cfg": 1.0, "cfg_last": 2.0}, True),
        ({"cfg": 1.0, "semantic": BranchSampling(cfg=2.0)}, True),
    ],
)
def test_unconditional_rows_are_there_when_something_needs_them(changes, guided):
    assert SamplingConfig(**changes).guided is guided


def test_guidance_may_move_from_the_first_patch_to_the_last():
    linear = SamplingConfig(cfg=5.0, cfg_last=1.0, semantic=BranchSampling(cfg=3.0))
    assert linear.guidance("pixel", 5).tolist() == [5, 4, 3, 2, 1]
    assert linear.guidance("semantic", 5).tolist() == [3, 2.5, 2, 1.5, 1]
    cosine = SamplingConfig(cfg=1.0, cfg_last=5.0, cfg_curve="cosine").guidance("pixel", 5)
    torch.testing.assert_close(cosine, torch.tensor([1.0, 3 - 2**0.5, 3.0, 3 + 2**0.5, 5.0]))
    assert linear.guidance("pixel", 1).tolist() == [5]


def test_a_list_has_a_setting_for_each_depth():
    config = SamplingConfig(temperature=[1.0, 0.5], top_k=5, pixel=BranchSampling(top_k=[3, 0]))
    assert config.draws("pixel", 2) == [DrawSettings(1.0, 3, 1.0), DrawSettings(0.5, 0, 1.0)]
    assert config.draws("semantic", 2) == [DrawSettings(1.0, 5, 1.0), DrawSettings(0.5, 5, 1.0)]
    with pytest.raises(ValueError, match=r"temperature=.* has 2 entries, but an image has 3 depths"):
        config.draws("pixel", 3)


def test_reads_from_yaml():
    schema = OmegaConf.structured(SamplingConfig)
    changes = {"cfg": 5, "temperature": [1, 0.5], "pixel": {"top_k": 100}}
    config = OmegaConf.to_object(OmegaConf.merge(schema, changes))
    assert config == SamplingConfig(cfg=5.0, temperature=[1, 0.5], pixel=BranchSampling(top_k=100))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cfg": -1.0},
        {"cfg": math.nan},
        {"cfg_last": -1.0},
        {"cfg_last": math.inf},
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": [1.0, math.nan]},
        {"temperature": "warm"},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_k": True},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_p": [0.5, 0.0]},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingConfig(**wrong)
    with pytest.raises(ValueError, match="semantic"):
        SamplingConfig(semantic=BranchSampling(**wrong))


@pytest.mark.parametrize("wrong", [{"cfg_curve": "sine"}, {"runtime": "fast"}])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(ValueError, match="is unknown: choose"):
        SamplingConfig(**wrong)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1"])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed {seed} must be"):
        uniforms([0, seed], 2)
