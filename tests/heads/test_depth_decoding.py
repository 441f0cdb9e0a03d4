"""Sampling with stacked heads and a cache, against each head alone with teacher forcing."""

import itertools
import math

import pytest
import torch

from heads.config import DepthHeadConfig
from heads.depth_decoding import DepthDecoder, sample_codes
from heads.depth_transformer import DepthTransformer
from heads.sampling import DrawSettings

M, D, K, C, E = 5, 3, 8, 4, 24
PLAIN = DrawSettings(temperature=1.0, top_k=0, top_p=1.0)


@pytest.mark.parametrize("mlp_per_depth", [False, True])
@pytest.mark.parametrize("num_heads", [1, 2])
@torch.no_grad()
def test_steps_equal_teacher_forcing(num_heads, mlp_per_depth):
    torch.manual_seed(0)
    config = DepthHeadConfig(3, 16, 2, 32, mlp_per_depth=mlp_per_depth)
    heads = [DepthTransformer(config, E, C, D, K) for _ in range(num_heads)]
    for parameter in [p for head in heads for p in head.parameters()]:
        parameter.add_(0.2 * torch.randn_like(parameter))  # norms too, which start alike
    decoder = DepthDecoder(heads)
    for _ in range(2):  # a second position starts anew
        hidden_states, embeddings = torch.randn(M, E), torch.randn(num_heads, M, D, C)
        steps = [decoder.start(hidden_states)]
        logits = [[decoder.logits(steps[-1], g) for g in range(num_heads)]]
        for d in range(1, D):
            steps.append(decoder.step(embeddings[:, :, :d].sum(dim=2)))
            logits.append([decoder.logits(steps[-1], g) for g in range(num_heads)])
        for g, head in enumerate(heads):
            states = head(hidden_states, embeddings[g])
            torch.testing.assert_close(torch.stack(steps, dim=2)[g], states, rtol=1e-4, atol=1e-5)
            for d in range(D):
                expected = head.classifiers.logits(states[:, d], d)
                torch.testing.assert_close(logits[d][g], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@torch.no_grad()
def test_codes_follow_the_teacher_forced_distribution(cfg):
    """All 3 x 3 codes of a toy head: how often each is drawn against its teacher-forced probability (Eq. 8)."""
    torch.manual_seed(0)
    head = DepthTransformer(DepthHeadConfig(1, 8, 2, 16), input_width=6, code_dim=2, depth=2, codebook_size=3)
    head.classifiers.weight.mul_(40)
    codebook, hidden = 2 * torch.randn(3, 2), torch.randn(2, 6)
    num = 20000
    rows = hidden[:1].repeat(num, 1) if cfg == 1 else hidden.repeat_interleave(num, dim=0)
    uniform = torch.rand(num, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = torch.tensor([cfg])
    (drawn,) = sample_codes(DepthDecoder([head]), rows, lambda code, _: codebook[code], uniform, [[PLAIN] * 2], scale)
    for codes in itertools.product(range(3), repeat=2):
        states = head(hidden, codebook[list(codes)].repeat(2, 1, 1))
        probability = 1.0
        for d in range(2):
            conditional, unconditional = head.classifiers.logits(states[:, d], d)
            logits = unconditional + cfg * (conditional - unconditional)
            probability *= logits.softmax(0)[codes[d]].item()
        frequency = (drawn == torch.tensor(codes)).all(dim=1).double().mean().item()
        assert abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / num)
