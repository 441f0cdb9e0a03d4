import itertools
import math

import pytest
import torch
from omegaconf import OmegaConf

from heads.config import DepthHeadConfig
from heads.depth_transformer import DepthTransformer
from heads.sampling import BranchSampling, DrawSettings, SamplingConfig, draw, guide, sample_codes, uniforms

PLAIN = DrawSettings(cfg=1.0, temperature=1.0, top_k=0, top_p=1.0)


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


def test_temperature_zero_takes_the_most_probable():
    logits = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    codes = draw(logits, torch.rand(7, dtype=torch.float64), PLAIN._replace(temperature=0.0))
    assert torch.equal(codes, logits.argmax(1))


def test_guidance():
    conditional, unconditional = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([conditional, unconditional])
    torch.testing.assert_close(guide(rows, 3.0), unconditional + 3 * (conditional - unconditional))
    torch.testing.assert_close(guide(rows, 0.0), unconditional)
    assert torch.equal(guide(rows, 1.0), conditional)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_codes_follow_the_teacher_forced_distribution(cfg):
    """All 3 x 3 codes of a toy head: how often each is drawn against its teacher-forced probability (Eq. 8)."""
    torch.manual_seed(0)
    head = DepthTransformer(DepthHeadConfig(1, 8, 2, 16), input_width=6, code_dim=2, depth=2, codebook_size=3)
    with torch.no_grad():
        head.classifiers.weight.mul_(40)
    codebook, hidden = 2 * torch.randn(3, 2), torch.randn(2, 6)
    num = 20000
    rows = hidden[:1].repeat(num, 1) if cfg == 1 else hidden.repeat_interleave(num, dim=0)
    uniform = torch.rand(num, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        drawn = sample_codes(head, rows, lambda code, _: codebook[code], uniform, PLAIN._replace(cfg=cfg))
        for codes in itertools.product(range(3), repeat=2):
            states = head(hidden, codebook[list(codes)].repeat(2, 1, 1))
            probability = 1.0
            for d in range(2):
                conditional, unconditional = head.classifiers.logits(states[:, d], d)
                logits = unconditional + cfg * (conditional - unconditional)
                probability *= logits.softmax(0)[codes[d]].item()
            frequency = (drawn == torch.tensor(codes)).all(dim=1).double().mean().item()
            assert abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / num)


def test_uniform_numbers_belong_to_the_seed():
    together, alone = uniforms([3, 5, 2**62], 4, 2), uniforms([5], 4, 2)
    assert together.shape == (3, 4, 2) and together.dtype == torch.float64
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_a_codebook_may_differ_from_what_both_share():
    config = SamplingConfig(cfg=3.0, top_k=900, semantic=BranchSampling(cfg=1.0, temperature=0.5))
    assert config.branch("pixel") == DrawSettings(3.0, 1.0, 900, 1.0)
    assert config.branch("semantic") == DrawSettings(1.0, 0.5, 900, 1.0)
    assert config.guided
    assert not SamplingConfig(cfg=1.0).guided


def test_reads_from_yaml():
    schema = OmegaConf.structured(SamplingConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, {"cfg": 5, "pixel": {"top_k": 100}}))
    assert config == SamplingConfig(cfg=5.0, pixel=BranchSampling(top_k=100))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cfg": -1.0},
        {"cfg": math.nan},
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingConfig(**wrong)
    with pytest.raises(ValueError, match="semantic"):
        SamplingConfig(semantic=BranchSampling(**wrong))
