"""Documents packed by data/packing.py against the same documents alone: losses and gradients, for every attention."""

import numpy as np
import pytest
import torch
import transformers.modeling_flash_attention_utils as flash
from transformers import AttentionInterface, AttentionMaskInterface

from data.documents import Document, ImageRef, Turn, conversation_document, drawing_document, interleaved_document
from data.packing import collate
from mllm.loss import LossSums, LossWeights, loss

N, D, K = 4, 3, 8  # of tests/mllm/conftest.py


class Store:
    num_patches, depth = N, D

    def codes_of(self, indices):
        return [tuple(np.random.default_rng(i).integers(K, size=(2, N, D))) for i in indices]


STORE = Store()


def documents(vocabulary) -> list[Document]:
    """Every kind of target: text, drawn images, both in one document, several images."""
    image = [ImageRef(STORE, i) for i in range(7)]  # type: ignore[arg-type]
    mixed = [Turn("user", [image[0], "Mix ", image[1]]), Turn("assistant", ["red ", image[2], "!"])]
    return [
        drawing_document(vocabulary, image[3], "a red apple", "draw"),
        conversation_document(vocabulary, mixed, "mixed"),
        interleaved_document(vocabulary, [image[4], "hand", image[5]], "page"),
        interleaved_document(vocabulary, ["apple", image[6]], "seen", learn_images=False),
        drawing_document(vocabulary, image[0], None, "unconditional"),
    ]


def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale):
    """flash_attn_varlen_func by its definition: float[total, heads, width], each stretch by itself, causal."""
    assert torch.equal(cu_seqlens_q, cu_seqlens_k) and max_seqlen_q == max_seqlen_k
    SEEN.append((cu_seqlens_q.tolist(), int(max_seqlen_q), cu_seqlens_q.dtype))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    outputs = []
    for start, end in zip(cu_seqlens_q.tolist()[:-1], cu_seqlens_q.tolist()[1:], strict=True):
        one = (x[start:end].transpose(0, 1) for x in (q, k, v))
        outputs.append(torch.nn.functional.scaled_dot_product_attention(*one, is_causal=True, scale=softmax_scale))
    return torch.cat([output.transpose(0, 1) for output in outputs])


SEEN: list[tuple[list[int], int, torch.dtype]] = []


def flash_by_definition(module, query, key, value, attention_mask, scaling=None, position_ids=None, **_):
    """What transformers' flash attention does with packed rows: its own test, its own bounds, then the kernel."""
    assert attention_mask is None and flash._is_packed_sequence(position_ids, len(query))
    (cu_q, cu_k), (max_q, max_k) = flash.prepare_fa_kwargs_from_position_ids(position_ids)
    flat = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    return varlen(*flat, cu_q, cu_k, max_q, max_k, softmax_scale=scaling).unsqueeze(0), None


@pytest.fixture(params=["sdpa", "eager", "flash_by_definition"])
def attention(request) -> str:
    """flash-attn is absent on a CPU: everything of its path runs but the kernel, which `varlen` replaces."""
    if request.param == "flash_by_definition":
        SEEN.clear()
        AttentionInterface.register(request.param, flash_by_definition)
        AttentionMaskInterface.register(request.param, AttentionMaskInterface()["flash_attention_2"])
    return request.param


def run(model, batches) -> tuple[list[LossSums], dict[str, torch.Tensor]]:
    model.zero_grad()
    sums = [model(batch) for batch in batches]
    sum(loss(part, LossWeights(), 1) for part in sums).backward()
    return sums, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_packed_equals_unpacked(make_model, vocabulary, attention):
    model = make_model()
    model.llm.config._attn_implementation = "sdpa"
    own = documents(vocabulary)
    alone, expected = run(model, [collate([[d]], len(d), vocabulary.endoftext, N, D) for d in own])
    lengths = [len(d) for d in own]
    width = max(sum(lengths[:3]), sum(lengths[3:])) + 5
    packed = collate([own[:3], own[3:]], width, vocabulary.endoftext, N, D)
    model.llm.config._attn_implementation = attention
    (together,), ours = run(model, [packed])
    for name, value in together._asdict().items():
        torch.testing.assert_close(value, sum(getattr(part, name) for part in alone), msg=name)
    assert ours.keys() == expected.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-4, atol=1e-5)
    if attention == "flash_by_definition":
        ends = [*lengths[:3], width - sum(lengths[:3]), *lengths[3:], width - sum(lengths[3:])]
        assert len(SEEN) == model.llm.config.num_hidden_layers  # backward does not ask again
        for cu_seqlens, longest, dtype in SEEN:
            assert cu_seqlens == [0, *np.cumsum(ends).tolist()] and longest == max(ends) and dtype == torch.int32
