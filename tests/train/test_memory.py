"""The estimates against what autograd really keeps, and against ZeRO's table by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data.batch import Batch
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from tokenizer import Codebooks
from train.engine_config import EngineConfig
from train.flops import Work
from train.memory import activations, states
from train.parameters import PartsOptimizerConfig, group_parameters

VISUAL = VisualSpec(grid=(8, 8), depth=4, codebook_size=64, code_dim=8, tokenizer_id="none")
LLM = LLMConfig(None, 64, 192, 4, 4, 2, max_position_embeddings=512, attn_implementation="sdpa")


def tiny(dtype: torch.dtype = torch.float32, num_layers: int = 4) -> UnifiedModel:
    torch.manual_seed(0)
    books = Codebooks(*(torch.randn(1, VISUAL.codebook_size, VISUAL.code_dim) for _ in range(2)))
    heads = DepthHeadConfig(num_layers=2, width=64, num_heads=2, mlp_width=128)
    llm = replace(LLM, num_hidden_layers=num_layers)
    return UnifiedModel(UnifiedConfig(llm, heads), VISUAL, 300, books, dtype=dtype).train()


def one_image(num_rows: int = 2, length: int = 256) -> Batch:
    """Rows of text, some of it learned, with an image that is drawn."""
    ids = torch.randint(300, (num_rows, length))
    labels = torch.full_like(ids, -100)
    labels[:, 100:150] = ids[:, 100:150]
    drawn = torch.zeros_like(ids, dtype=torch.bool)
    drawn[:, 20 : 20 + VISUAL.num_patches] = True
    codes = torch.randint(VISUAL.codebook_size, (num_rows, *VISUAL.shape))
    return Batch(codes, codes, ids, torch.arange(length).repeat(num_rows, 1), labels, drawn, drawn, [])


def kept_bytes(model: UnifiedModel, batch: Batch) -> int:
    """What autograd keeps for the backward pass beside the weights, every storage once."""
    storages = {}

    def see(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        sums = model(batch)
    assert sums.text_loss.requires_grad
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trainable", [["llm", "projector", "heads"], ["projector", "heads"]])
def test_activations_are_what_autograd_keeps(trainable, precision):
    model, batch = tiny(torch.bfloat16 if precision == "bf16" else torch.float32), one_image()
    group_parameters(model, trainable, PartsOptimizerConfig())
    estimate = activations(model, Work.of(batch), precision, checkpointing=False)
    # In bf16 on CPUs the norms of the heads keep two fp32 copies, which the fused kernel of GPUs does not.
    assert estimate == pytest.approx(kept_bytes(model, batch), rel={"fp32": 0.05, "bf16": 0.2}[precision])


def test_with_checkpointing_layers_keep_their_inputs_and_one_is_whole():
    batch = one_image()
    four, one = (kept_bytes(tiny(num_layers=n), batch) for n in (4, 1))
    inputs = 4 * 4 * LLM.hidden_size * batch.input_ids.numel()
    estimate = activations(tiny(), Work.of(batch), "fp32", checkpointing=True)
    assert estimate == pytest.approx(one + inputs, rel=0.1) != pytest.approx(four, rel=0.1)


def test_states_are_those_of_zero_s_table():
    """16 bytes a parameter in bf16, of which ZeRO-1, 2 and 3 divide 12, 14 and 16 (section 3 of the paper).

    Two more from stage 2 on, where gradients are added up in fp32.
    """
    model = tiny()
    number = sum(p.numel() for p in model.parameters())

    def divided(averaged: bool = False, **changes) -> float:
        engine = EngineConfig(precision="bf16", **changes)
        held = states(model, engine, 8, averaged)
        return (held.total - held.buffers) / number

    assert divided(zero_stage=0) == 16
    assert divided(zero_stage=1) == 4 + 12 / 8
    assert divided(zero_stage=2) == 2 + 16 / 8
    assert divided(zero_stage=3) == 18 / 8
    assert divided(zero_stage=0, averaged=True) == 20 and divided(zero_stage=1, averaged=True) == 4 + 16 / 8
    assert divided(zero_stage=2, offload_optimizer=True) == 2
    assert divided(zero_stage=3, offload_optimizer=True, offload_parameters=True) == 0


def test_what_is_frozen_has_neither_gradient_nor_moments():
    model = tiny()
    group_parameters(model, ["heads"], PartsOptimizerConfig())
    held = states(model, EngineConfig(precision="fp32", zero_stage=0), num_gpus=2)
    number, learned = (sum(p.numel() for p in model.parameters() if p.requires_grad >= least) for least in (0, 1))
    assert (held.weights, held.gradients, held.optimizer) == (4 * number, 4 * learned, 8 * learned)
