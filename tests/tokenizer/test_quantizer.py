"""The residual quantizer against a naive loop, and against vector-quantize-pytorch."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenizer.codebook import Codebook
from tokenizer.config import QuantizerConfig
from tokenizer.quantizer import ResidualQuantizer

B, N, C, K, D = 3, 5, 6, 7, 4


def quantizer(**changes) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(QuantizerConfig(code_dim=C, codebook_size=K, depth=D, **changes))


def features() -> torch.Tensor:
    return torch.randn(B, N, C, generator=torch.Generator().manual_seed(1))


def naive_codes(books: list[torch.Tensor], z: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Position by position, entry by entry, straight from the definition; also the partial sums."""
    codes = torch.zeros(*z.shape[:2], D, dtype=torch.int64)
    partial_sums = [torch.zeros_like(z) for _ in range(D)]
    for b in range(z.shape[0]):
        for n in range(z.shape[1]):
            residual, total = z[b, n], torch.zeros(C)
            for d in range(D):
                distances = [((residual - entry) ** 2).sum().item() for entry in books[d]]
                codes[b, n, d] = distances.index(min(distances))
                chosen = books[d][codes[b, n, d]]
                residual, total = residual - chosen, total + chosen
                partial_sums[d][b, n] = total
    return codes, partial_sums


@pytest.mark.parametrize("shared", [True, False])
def test_codes_features_and_commitment_equal_a_naive_loop(shared):
    model = quantizer(shared=shared).eval()
    z = features()
    codes, partial_sums = naive_codes([model.codebook(d).embedding for d in range(D)], z)
    output = model(z)
    assert torch.equal(output.codes, codes)
    assert torch.equal(model.encode(z), codes)
    torch.testing.assert_close(output.features, partial_sums[-1])
    torch.testing.assert_close(model.embed(codes), partial_sums[-1])
    expected = torch.stack([(z - s).square().mean() for s in partial_sums]).mean()
    torch.testing.assert_close(output.commitment, expected)


def test_codes_equal_vector_quantize_pytorch():
    from vector_quantize_pytorch import ResidualVQ

    model = quantizer(shared=True).eval()
    oracle = ResidualVQ(dim=C, codebook_size=K, num_quantizers=D, shared_codebook=True, kmeans_init=False).eval()
    for layer in oracle.layers:
        layer._codebook.embed.data.copy_(model.codebook(0).embedding[None])
    z = features()
    quantized, indices, _ = oracle(z)
    output = model(z)
    assert torch.equal(output.codes, indices)
    torch.testing.assert_close(output.features, quantized)


def test_search_in_chunks_finds_the_same_entries(monkeypatch):
    book = Codebook(K, C, decay=0.9, restart_below=0.0)
    vectors = torch.randn(50, C)
    whole = book.nearest(vectors)
    monkeypatch.setattr("tokenizer.codebook.SEARCH_CHUNK", 3 * K)
    assert torch.equal(book.nearest(vectors), whole)
    assert torch.equal(whole, torch.cdist(vectors, book.embedding).argmin(1))


class LargestResult(TorchDispatchMode):
    """Elements of the largest tensor that any operation inside returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        held = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *held])
        return result


@pytest.mark.parametrize("ema_update", ["per_forward", "per_depth"])
def test_no_matrix_of_vectors_by_entries_is_ever_held(ema_update, monkeypatch):
    num, chunk = 40 * N, 3 * K
    monkeypatch.setattr("tokenizer.codebook.SEARCH_CHUNK", chunk)
    z = torch.randn(40, N, C)
    with LargestResult() as largest:
        quantizer(ema_update=ema_update).train()(z)
    assert largest.elements <= max(chunk, num * C * D) < num * K * D


def test_straight_through_gradient_is_the_identity_plus_commitment():
    model, z = quantizer().eval(), features().requires_grad_()
    weight = torch.randn(B, N, C)
    (model(z).features * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    z.grad = None
    model(z).commitment.backward()
    _, partial_sums = naive_codes([model.codebook(0).embedding] * D, z.detach())
    expected = torch.stack([2 * (z.detach() - s) for s in partial_sums]).sum(0) / (D * z.numel())
    torch.testing.assert_close(z.grad, expected)


def naive_update(book: Codebook, vectors: torch.Tensor, codes: torch.Tensor, decay: float) -> torch.Tensor:
    """One EMA step with the one-hot matrix of the textbook; returns the new embedding (no restarts)."""
    one_hot = torch.nn.functional.one_hot(codes, K).float()
    size = decay * book.cluster_size + (1 - decay) * one_hot.sum(0)
    vector_sum = decay * book.vector_sum + (1 - decay) * one_hot.T @ vectors
    smoothed = (size + 1e-5) / (size.sum() + K * 1e-5) * size.sum()
    return vector_sum / smoothed[:, None]


def warm(model: ResidualQuantizer) -> ResidualQuantizer:
    """Gives the statistics values that no restart touches."""
    for book in model.codebooks:
        book.cluster_size.fill_(10.0)
        book.vector_sum.copy_(book.embedding * 10)
    return model


def test_per_forward_update_uses_all_depths_at_once():
    model = warm(quantizer(ema_update="per_forward", restart_below=0.0)).train()
    before, z = copy.deepcopy(model), features()
    codes, partial_sums = naive_codes([before.codebook(0).embedding] * D, z)
    assert torch.equal(model(z).codes, codes)
    residuals = torch.stack([z, *(z - s for s in partial_sums[:-1])], 2)  # [B, N, D, C]
    expected = naive_update(before.codebook(0), residuals.reshape(-1, C), codes.reshape(-1), 0.99)
    torch.testing.assert_close(model.codebook(0).embedding, expected)


def test_per_depth_update_lets_the_next_depth_see_the_updated_codebook():
    model = warm(quantizer(ema_update="per_depth", restart_below=0.0, ema_decay=0.5)).train()
    book, z = copy.deepcopy(model.codebook(0)), features()
    residual, expected_codes = z.reshape(-1, C), []
    for _ in range(D):
        codes = torch.cdist(residual, book.embedding).argmin(1)
        looked_up = book.embedding[codes]
        new = naive_update(book, residual, codes, 0.5)
        one_hot = torch.nn.functional.one_hot(codes, K).float()
        book.cluster_size = 0.5 * book.cluster_size + 0.5 * one_hot.sum(0)
        book.vector_sum = 0.5 * book.vector_sum + 0.5 * one_hot.T @ residual
        book.embedding.copy_(new)
        residual = residual - looked_up
        expected_codes.append(codes)
    output = model(z)
    assert torch.equal(output.codes.reshape(-1, D), torch.stack(expected_codes, 1))
    torch.testing.assert_close(model.codebook(0).embedding, book.embedding)


def test_unused_entries_restart_at_vectors_of_the_batch():
    model = quantizer(restart_below=1.0).train()
    z = features()
    model(z)  # cold statistics: every entry is dead after the first step
    _, partial_sums = naive_codes([quantizer().codebook(0).embedding] * D, z)
    candidates = torch.stack([z, *(z - s for s in partial_sums[:-1])], 2).reshape(-1, C)
    distances = (model.codebook(0).embedding[:, None] - candidates).norm(dim=-1).min(1).values
    assert distances.max() < 1e-3
    assert model.codebook(0).cluster_size.eq(1).all()


@pytest.mark.parametrize("stop", [lambda m: m.eval(), lambda m: (m.freeze(), m.train())])
def test_no_update_in_evaluation_or_after_freeze(stop):
    model = quantizer()
    stop(model)
    before = model.codebook(0).embedding.clone()
    model(features())
    assert torch.equal(model.codebook(0).embedding, before)


def test_codebooks_stay_fp32_buffers_whatever_the_module_becomes():
    model = quantizer().bfloat16()
    assert not list(model.parameters())
    assert all(buffer.dtype == torch.float32 for buffer in model.buffers())


def test_autocast_and_fast_matmuls_change_no_code():
    model, z = quantizer().eval(), features()
    expected = model(z).codes
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model(z).codes, expected)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.parametrize("update", ["per_forward", "per_depth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_leave_the_codebooks_as_they_are(update, value):
    model = warm(quantizer(ema_update=update)).train()
    before, z = copy.deepcopy(model.state_dict()), features()
    z[1, 2, 3] = value
    model(z)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(features())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not torch.equal(model.codebook(0).embedding, before["codebooks.0.embedding"])


def test_a_vector_that_is_not_finite_on_another_rank_counts_here(monkeypatch):
    def other_rank(counts, sums, replacements):
        sums[0] = float("nan")

    model = warm(quantizer()).train()
    before = model.codebook(0).embedding.clone()
    monkeypatch.setattr("tokenizer.codebook.synchronise_statistics", other_rank)
    model(features())
    assert torch.equal(model.codebook(0).embedding, before)
