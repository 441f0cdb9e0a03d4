"""Any decoder of the Llama, Qwen2 or Qwen3 kind, loaded from a folder of its own, under the unified model."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from heads.sampling import SamplingConfig
from mllm.answer import answer
from mllm.config import LLMConfig
from mllm.generate import generate_images
from mllm.loss import LossSums, LossWeights, loss
from mllm.model import UnifiedModel
from tokenizer import DualCodes

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 128}
KINDS = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True, "head_dim": 8}),
}


@pytest.fixture(params=KINDS)
def model(request, make_model: Callable[..., UnifiedModel], vocabulary, tmp_path) -> UnifiedModel:
    config_class, own = KINDS[request.param]
    config = config_class(**SIZES, **own, vocab_size=len(vocabulary))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = make_model(llm=LLMConfig(path=str(tmp_path), attn_implementation="sdpa"))
    assert model.llm.config.model_type == request.param
    return model


def test_it_packs(model, documents, pack):
    draw, ask, text = documents["draw"], documents["ask"], documents["text"]
    packed = pack([[draw, text, ask]])
    codes = [DualCodes(packed.pixel[i], packed.semantic[i]) for i in ([0], [], [1])]
    alone = [
        model(replace(pack([[document]]), pixel=own.pixel, semantic=own.semantic))
        for document, own in zip((draw, text, ask), codes, strict=True)
    ]
    expected = LossSums(*(sum(parts) for parts in zip(*alone, strict=True)))
    for ours, theirs in zip(model(packed), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_learns(model, documents, pack):
    batch = pack([[documents["draw"], documents["ask"], documents["text"]]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(loss(model(batch), LossWeights(), batch.num_targets))
        losses[-1].backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_it_answers_and_draws_what_it_finds_most_probable(model, vocabulary, documents, pack):
    """Against the whole sequence at once, without a cache."""
    codes = generate_images(model, vocabulary, ["a red apple"], SamplingConfig(cfg=1.0, temperature=0.0), [0])
    drawn = model.eval()(replace(pack([[documents["draw"]]]), pixel=codes.pixel, semantic=codes.semantic))
    assert drawn.pixel_correct.tolist() == drawn.semantic_correct.tolist() == [4, 4, 4]

    ids = vocabulary.answering_prompt("What is this?", None)
    (text,) = answer(model, vocabulary, ["What is this?"], [None], max_new_tokens=6)
    for _ in range(6):
        logits = model.llm(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
    written = ids[-6:]
    ends = [i for i, token in enumerate(written) if token in (vocabulary.im_end, vocabulary.endoftext)]
    assert text == vocabulary.decode(written[: ends[0]] if ends else written)
