from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from heads.config import DepthHeadConfig
from heads.depth_transformer import DepthTransformer

M, D, K, C, E = 5, 3, 8, 4, 24
CONFIG = DepthHeadConfig(num_layers=3, width=16, num_heads=2, mlp_width=32)


@pytest.fixture(params=[False, True], ids=["shared", "per depth"])
def head(request) -> DepthTransformer:
    torch.manual_seed(0)
    config = replace(CONFIG, mlp_per_depth=request.param)
    return DepthTransformer(config, input_width=E, code_dim=C, depth=D, codebook_size=K)


@pytest.fixture
def hidden_states():
    return torch.randn(M, E, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def code_embeddings():
    return torch.randn(M, D, C, generator=torch.Generator().manual_seed(2))


def naive_state(head: DepthTransformer, hidden_state, code_embeddings, depth: int):
    """Eq. 5 for one position and one depth (from 1), everything recomputed: loops over heads, no mask, no batch."""

    def rms_norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def own(weight, d):
        return weight[d] if head.config.mlp_per_depth else weight

    inputs = [head.hidden_projection.weight @ hidden_state]
    for d in range(2, depth + 1):
        inputs.append(head.code_projection.weight @ sum(code_embeddings[: d - 1]))
    x = torch.stack(inputs) + head.depth_positions[:depth]
    size = CONFIG.width // CONFIG.num_heads
    for block in head.blocks:
        query, key, value = (rms_norm(x, block.attention_norm.weight) @ block.qkv.weight.T).split(CONFIG.width, dim=1)
        attended = torch.zeros_like(x)
        for i in range(CONFIG.num_heads):
            part = slice(i * size, (i + 1) * size)
            for d in range(depth):
                weights = (key[: d + 1, part] @ query[d, part] / size**0.5).softmax(0)
                attended[d, part] = weights @ value[: d + 1, part]
        x = x + attended @ block.out.weight.T
        inner = [own(block.up.weight, d) @ rms_norm(x[d], block.mlp_norm.weight) for d in range(depth)]
        x = x + torch.stack([own(block.down.weight, d) @ F.gelu(inner[d]) for d in range(depth)])
    return rms_norm(x[-1], head.norm.weight)


def test_equals_naive_recomputation_of_each_depth(head, hidden_states, code_embeddings):
    with torch.no_grad():
        states = head(hidden_states, code_embeddings)
        for m in range(M):
            for d in range(D):
                expected = naive_state(head, hidden_states[m], code_embeddings[m], d + 1)
                torch.testing.assert_close(states[m, d], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", range(D))
def test_a_state_depends_on_the_codes_before_it_only(head, hidden_states, code_embeddings, changed):
    with torch.no_grad():
        before = head(hidden_states, code_embeddings)
        code_embeddings[:, changed] += 1
        difference = (head(hidden_states, code_embeddings) - before).abs().amax(dim=(0, 2))
    assert not difference[: changed + 1].any()
    assert (difference[changed + 1 :] > 1e-4).all()


def test_checkpointed_layers_run_twice_and_have_the_same_gradients(head, hidden_states, code_embeddings):
    gradients, num_runs = [], []
    for block in head.blocks:
        block.register_forward_pre_hook(lambda *_: num_runs.append(1))
    for head.gradient_checkpointing in (False, True):
        head.zero_grad()
        head(hidden_states, code_embeddings).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)
    assert len(num_runs) == len(head.blocks) * (1 + 2)


def test_every_parameter_gets_a_gradient(head, hidden_states, code_embeddings):
    head.classifiers(head(hidden_states, code_embeddings), torch.zeros(M, D, dtype=torch.int64)).loss.sum().backward()
    assert [name for name, parameter in head.named_parameters() if not parameter.grad.any()] == []


def test_weights_begin_as_gpt_2_has_them():
    config = DepthHeadConfig(num_layers=2, width=64, num_heads=2, mlp_width=256, mlp_per_depth=True)
    head = DepthTransformer(config, input_width=E, code_dim=C, depth=D, codebook_size=128)
    for name, weight in head.named_parameters():
        if weight.dim() >= 2:
            is_added = name.endswith(("out.weight", "down.weight"))
            expected = 0.02 / 2 if is_added else 0.02  # two layers add four times
            assert weight.std().item() == pytest.approx(expected, rel=0.2), name
        else:
            assert (weight == 1).all()


def test_depth_of_one_code(hidden_states, code_embeddings):
    head = DepthTransformer(CONFIG, input_width=E, code_dim=C, depth=1, codebook_size=K)
    assert head(hidden_states, code_embeddings[:, :1]).shape == (M, 1, CONFIG.width)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of num_heads=3"):
        DepthHeadConfig(width=16, num_heads=3)
    with pytest.raises(ValueError, match="at least 1"):
        DepthHeadConfig(num_layers=0)
    with pytest.raises(ValueError, match="choose codebook, learned, learned_per_depth"):
        DepthHeadConfig(code_embedding="table")


@pytest.mark.parametrize(("code_embedding", "num_tables"), [("learned", 1), ("learned_per_depth", D - 1)])
def test_a_learned_table_gives_each_depth_its_vectors(code_embedding, num_tables):
    config = replace(CONFIG, code_embedding=code_embedding)
    head = DepthTransformer(config, input_width=E, code_dim=C, depth=D, codebook_size=K)
    table, codes = head.code_table, torch.randint(K, (M, D), generator=torch.Generator().manual_seed(0))
    assert table.weight.shape == (num_tables, K, CONFIG.width)
    expected = [[table.weight[min(d, num_tables - 1), codes[m, d]] for d in range(D)] for m in range(M)]
    assert torch.equal(table(codes), torch.stack([torch.stack(row) for row in expected]))
    assert torch.equal(table(codes[:, 1:2], 1), table(codes)[:, 1:2])
    head(torch.randn(M, E), table(codes)).sum().backward()
    read = {(min(d, num_tables - 1), int(codes[m, d])) for m in range(M) for d in range(D - 1)}  # the last: by nobody
    assert {tuple(place) for place in table.weight.grad.any(-1).nonzero().tolist()} == read
