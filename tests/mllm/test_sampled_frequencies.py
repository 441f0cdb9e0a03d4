"""Images are sampled from exactly the distribution that training fits.

Two patches of two codebooks with two depths of two codes: 256 images are possible, and how often each is drawn is held
against its teacher-forced probability.
"""

import itertools

import pytest
import torch

from heads.config import DepthHeadConfig
from heads.sampling import BranchSampling, SamplingConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.generate import generate_images
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DualCodes

CAPTION, NUM = "a red apple", 4000
N, D, K = 2, 2, 2
IMAGES = torch.tensor(list(itertools.product(range(K), repeat=2 * N * D))).view(-1, 2, N, D)


@pytest.fixture(scope="module")
def toy(vocabulary) -> UnifiedModel:
    torch.manual_seed(0)
    llm = LLMConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=1, max_position_embeddings=64, attn_implementation="sdpa")  # fmt: skip
    heads = DepthHeadConfig(num_layers=1, width=16, num_heads=2, mlp_width=32)
    spec = VisualSpec(grid=(1, N), depth=D, codebook_size=K, code_dim=4, tokenizer_id="tok")
    codebooks = Codebooks(torch.randn(1, K, 4), torch.randn(1, K, 4))
    model = UnifiedModel(UnifiedConfig(llm=llm, heads=heads), spec, len(vocabulary), codebooks).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def logits_after(model: UnifiedModel, prompt: list[int]) -> torch.Tensor:
    """float[256, 2, N, D, K] of all images, teacher-forced: no cache, and each image in a row of its own."""
    ids = torch.tensor([prompt + [0] * N]).repeat(len(IMAGES), 1)
    places = torch.arange(ids.shape[1]).repeat(len(IMAGES), 1)
    embeddings = model.embed(ids, places >= len(prompt), DualCodes(*IMAGES.unbind(1)))
    states = model.decode_packed(embeddings, places)[:, len(prompt) - 1 : -1]
    branches = []
    for i, branch in enumerate(("pixel", "semantic")):
        head = getattr(model, f"{branch}_head")
        vectors = model.codebooks.vectors(branch, IMAGES[:, i]).flatten(0, 1)
        weight = head.classifiers.weight
        branches.append(torch.einsum("ndw,dkw->ndk", head(states.flatten(0, 1), vectors), weight).view(-1, N, D, K))
    return torch.stack(branches, dim=1)


def probabilities(model: UnifiedModel, vocabulary, cfg: tuple[float, float]) -> torch.Tensor:
    """float64[256] with a guidance scale for each codebook."""
    conditional = logits_after(model, vocabulary.drawing_prompt(CAPTION)).double()
    unconditional = logits_after(model, vocabulary.drawing_prompt(None)).double()
    scale = torch.tensor(cfg).view(2, 1, 1, 1).double()
    log_probs = (unconditional + scale * (conditional - unconditional)).log_softmax(-1)
    return log_probs.gather(-1, IMAGES.unsqueeze(-1)).sum((1, 2, 3, 4)).exp()


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """The statistic, rare cells taken as one, and its mean + 4 deviations, which chance hardly ever exceeds."""
    common = expected >= 5
    pooled = [torch.cat([x[common], x[~common].sum().view(1)]) for x in (counts.double(), expected)]
    freedom = int(common.sum())
    return float(((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum()), freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("cfg", [(1.0, 1.0), (3.0, 3.0), (1.0, 2.0), (0.0, 0.0)])
def test_frequencies_are_the_teacher_forced_probabilities(toy, vocabulary, cfg):
    sampling = SamplingConfig(cfg=cfg[0], semantic=BranchSampling(cfg=cfg[1]))
    codes = generate_images(toy, vocabulary, [CAPTION] * NUM, sampling, range(NUM))
    digits = torch.stack(tuple(codes), dim=1).flatten(1)
    counts = (digits * K ** torch.arange(digits.shape[1]).flip(0)).sum(1).bincount(minlength=len(IMAGES))
    expected = probabilities(toy, vocabulary, cfg)
    assert expected.sum().item() == pytest.approx(1)
    statistic, bound = chi_square(counts, NUM * expected)
    assert statistic < bound
    other, bound = chi_square(counts, NUM * probabilities(toy, vocabulary, (cfg[0] + 1, cfg[1])))
    assert other > bound  # the test tells guidance scales apart
