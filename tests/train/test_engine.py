"""Two ranks under DeepSpeed against one process of plain autograd; saving, skipping, freezing, gathering.

Long because starting two ranks takes many seconds: one start serves every question about the engine.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from data.batch import Batch
from data.loader import Loader
from data.packing import collate
from data.sources import SourceConfig, open_sources
from data.vocabulary import Vocabulary
from heads.sampling import SamplingConfig
from mllm.generate import generate_images
from mllm.loss import loss
from mllm.pretrained import Unified
from tests.train.tiny_mllm import make_world, run_ranks, tiny_config, tiny_document
from tokenizer import DualTokenizer
from train.build_mllm import begin, continue_from, training_texts
from train.checkpoint import latest_checkpoint
from train.distributed import World, init_world
from train.engine import Engine, EngineConfig, deepspeed_config
from train.meter import LossMeter
from train.parameters import group_parameters
from train.precision import set_matmul_precision

OPTIONS = {
    "visual_features": "post_quant",
    "loss_weights": {"pixel": 0.5, "z_loss": 0.01},
    "heads": {
        "num_layers": 2, "width": 24, "num_heads": 2, "mlp_width": 32, "mlp_per_depth": True,
        "code_embedding": "learned_per_depth", "gradient_checkpointing": True,
    },
}  # fmt: skip
# What the batches of both ranks hold: documents by kind, or "nothing", rows without a single target.
UNEVEN = {
    "no image on one": ("draw", "text"),
    "no image on any": ("text", "text"),
    "no text label on one": ("unlabelled", "text"),
    "no drawing on one": ("caption", "draw"),
    "no target on one": ("draw", "nothing"),
    "no target on any": ("nothing", "nothing"),
}
WHOLE = 1_000_000  # more than any parameter has: ZeRO-3 keeps all of them resident
ENGINES = {
    "zero 3": EngineConfig(zero_stage=3, persistence_threshold=0, accumulation=2),
    "zero 3, resident": EngineConfig(zero_stage=3, persistence_threshold=WHOLE, accumulation=2),
    "zero 2": EngineConfig(zero_stage=2, accumulation=2),
    "zero 1": EngineConfig(zero_stage=1, accumulation=2),
    "zero 0": EngineConfig(zero_stage=0, accumulation=2),
}
RESUMABLE = ("zero 3", "zero 1", "zero 0")


class Setting:
    """Model, data and engine of one rank, all from seeds."""

    def __init__(self, folder: Path, engine: EngineConfig, world: World, checkpointing: bool = False, **changes: Any):
        config = tiny_config(folder, **changes)
        llm = replace(config.model.llm, gradient_checkpointing=checkpointing)
        vocabulary = Vocabulary.from_pretrained(folder / "vocabulary")
        model, tokenizer = replace(config.model, llm=llm), str(config.tokenizer)
        if config.init is None:
            self.unified = begin(model, tokenizer, vocabulary, 0, engine, world)
        else:
            self.unified = continue_from(config.init, model, engine, world)
        self.partitioned_at_birth = all(hasattr(p, "ds_id") for p in self.unified.model.llm.parameters())
        groups = group_parameters(self.unified.model, config.trainable, config.optimizer)
        self.engine = Engine(engine, world, self.unified.model, groups, config.optimizer, config.data.rows_per_batch)
        self.loader = Loader(config.data, vocabulary, None, world.rank, world.size, engine.accumulation)
        self.steps = iter(self.loader)
        self.meter = LossMeter(world, self.unified.model.config.loss_weights)

    def backward(self, batches: list[Batch], num_targets: int, factor: float = 1.0) -> None:
        for batch in batches:
            sums = self.engine(batch)
            self.engine.backward(loss(sums, self.meter.weights, num_targets) * factor)
            self.meter.add(sums)

    def step(self, factor: float = 1.0) -> float:
        step = next(self.steps)
        self.backward(step.micro_batches, step.num_targets, factor)
        return self.engine.step()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    from deepspeed.utils import safe_get_full_grad

    grads = {name: safe_get_full_grad(parameter) for name, parameter in model.named_parameters()}
    return {name: grad.clone() for name, grad in grads.items() if grad is not None}


def uneven_batches(folder: Path, vocabulary: Vocabulary) -> dict[str, Batch]:
    """A row each of images to draw, of images to describe, of text, of drawings without a label, of no target."""
    codes, rng = str(folder / "codes"), np.random.default_rng(0)
    kinds = {"draw": {"codes": codes}, "caption": {"codes": codes}, "text": {"path": str(folder / "lines.txt")}}
    sources = open_sources([SourceConfig(kind, **files) for kind, files in kinds.items()], vocabulary)
    rows = {kind: [source.document(i, rng) for i in (0, 1)] for kind, source in zip(kinds, sources, strict=True)}
    batches = {
        kind: collate([row], 96, vocabulary.endoftext, num_patches=4, depth=3)
        for kind, row in {**rows, "nothing": []}.items()
    }
    drawn = batches["draw"]
    return {**batches, "unlabelled": replace(drawn, labels=torch.full_like(drawn.labels, -100))}


def two_ranks(folder: Path) -> None:
    """Everything that needs two processes, in one start; the main rank writes what it saw."""
    set_matmul_precision("fp32")
    world = init_world()
    seen: dict[str, Any] = {}
    for name, engine in ENGINES.items():
        seen[name] = compare_to_one_process(folder, engine, world)
    seen["options"] = compare_to_one_process(folder, ENGINES["zero 3"], world, **with_options(folder))
    seen["checkpointed"] = compare_to_one_process(folder, ENGINES["zero 3"], world, checkpointing=True)
    for name in RESUMABLE:
        seen[f"{name} resumed"] = save_and_resume(folder, name, world)
        seen[f"{name} skipped"] = skip_a_step(folder, ENGINES[name], world)
    seen["uneven"] = uneven(folder, world)
    seen["frozen"] = freeze(folder, world)
    seen["gathered"] = gather(folder, world)
    seen["partitioned"] = load_partitioned(folder, world)
    seen["continued"] = continue_partitioned(folder, world)
    for name in ("zero 3", "zero 0"):
        seen[f"{name} autocast"] = autocast(folder, replace(ENGINES[name], precision="autocast"), world)
    seen["checkpointed autocast"] = autocast(folder, replace(ENGINES["zero 3"], precision="autocast"), world, True)
    seen["bf16"] = half_precision(folder, world)
    if world.is_main:
        torch.save(seen, folder / "seen.pt")


def with_options(folder: Path) -> dict[str, Any]:
    """Every option of heads, loss and visual embedding, and a tokenizer whose projections are causal attention."""
    llm = tiny_document(folder)["model"]["llm"]
    return {"tokenizer": str(folder / "attention"), "model": {"llm": llm, **OPTIONS}}


def compare_to_one_process(
    folder: Path, config: EngineConfig, world: World, checkpointing: bool = False, **changes: Any
) -> dict:
    setting = Setting(folder, config, world, checkpointing, **changes)
    step = next(setting.steps)
    setting.backward(step.micro_batches, step.num_targets)
    grads = gradients(setting.engine.model)
    norm = setting.engine.step()
    return {"gradients": grads, "norm": norm, "means": setting.meter.means(), "weights": setting.engine.state_dict()}


def save_and_resume(folder: Path, name: str, world: World) -> dict:
    first, checkpoints = Setting(folder, ENGINES[name], world), folder / name.replace(" ", "-")
    first.step()
    first.step()
    torch.rand(7)  # a generator state that a fresh start does not have
    first.engine.save(checkpoints, 2, {"loader": first.loader.state_dict()})
    expected_noise = torch.rand(3)
    first.step()
    second = Setting(folder, ENGINES[name], world)
    state = second.engine.load(latest_checkpoint(checkpoints))
    second.loader.load_state_dict(state["loader"])
    second.steps = iter(second.loader)
    same_noise = torch.equal(torch.rand(3), expected_noise)
    second.step()
    return {"uninterrupted": first.engine.state_dict(), "resumed": second.engine.state_dict(), "noise": same_noise}


def skip_a_step(folder: Path, config: EngineConfig, world: World) -> dict:
    setting = Setting(folder, config, world)
    setting.step()
    before = setting.engine.state_dict()
    norm = setting.step(factor=math.nan if world.rank == 1 else 1.0)
    after = setting.engine.state_dict()
    return {"norms": world.gather(norm), "before": before, "after": after, "next": setting.step()}


def uneven(folder: Path, world: World) -> dict[str, dict[str, Tensor]]:
    """Gradients of each pair of batches, from the same weights: the rate is 0."""
    optimizer = {"learning_rate": 0.0}
    setting = Setting(folder, replace(ENGINES["zero 3"], accumulation=1), world, optimizer=optimizer)
    batches, seen = uneven_batches(folder, setting.unified.vocabulary), {}
    for name, kinds in UNEVEN.items():
        pair = [batches[kind] for kind in kinds]
        setting.backward([pair[world.rank]], max(sum(batch.num_targets for batch in pair), 1))
        seen[name] = gradients(setting.engine.model)
        assert math.isfinite(setting.engine.step())
    return seen


def freeze(folder: Path, world: World) -> dict:
    setting = Setting(folder, ENGINES["zero 3"], world, trainable=["projector", "heads"])
    before = setting.engine.state_dict()
    setting.step()
    return {"before": before, "after": setting.engine.state_dict(), "rates": setting.engine.learning_rates}


def gather(folder: Path, world: World) -> dict:
    """Drawing between two steps, under partitioned weights."""
    plain, drawing = (Setting(folder, ENGINES["zero 3"], world) for _ in range(2))
    plain.step()
    drawing.step()
    with drawing.engine.gathered() as model:
        codes = generate_images(model, drawing.unified.vocabulary, ["a red apple"], SamplingConfig(), [0])
    plain.step()
    drawing.step()
    return {"plain": plain.engine.state_dict(), "drawing": drawing.engine.state_dict(), "codes": codes.pixel}


def load_partitioned(folder: Path, world: World) -> dict:
    heads = tiny_document(folder)["model"]["heads"]
    setting = Setting(folder, ENGINES["zero 3"], world, model={"llm": {"path": str(folder / "llm")}, "heads": heads})
    weights = setting.engine.state_dict()
    return {"weights": weights, "partitioned": setting.partitioned_at_birth, "norm": setting.step()}


def continue_partitioned(folder: Path, world: World) -> dict:
    """An exported model of an earlier stage, read into partitions."""
    setting = Setting(folder, ENGINES["zero 3"], world, init=str(folder / "export"), tokenizer=None, model={})
    weights = setting.engine.state_dict()
    step = next(setting.steps)
    setting.backward(step.micro_batches, step.num_targets)
    grads = gradients(setting.engine.model)
    setting.engine.step()
    return {"weights": weights, "partitioned": setting.partitioned_at_birth, "gradients": grads}


def autocast(folder: Path, config: EngineConfig, world: World, checkpointing: bool = False) -> dict:
    setting = Setting(folder, config, world, checkpointing)
    step = next(setting.steps)
    setting.backward(step.micro_batches, step.num_targets)
    grads, means = gradients(setting.engine.model), setting.meter.means()
    with torch.no_grad():  # as held-out documents are looked at
        setting.engine.train(False)
        for batch in step.micro_batches:
            setting.meter.add(setting.engine(batch))
        setting.engine.train()
    weights = {parameter.dtype for parameter in setting.engine.model.parameters()}
    seen = {"gradients": grads, "means": means, "held out": setting.meter.means(), "weights": list(weights)}
    return {**seen, "norm": setting.engine.step(), "next": setting.step()}


def half_precision(folder: Path, world: World) -> dict:
    setting = Setting(folder, replace(ENGINES["zero 3"], precision="bf16"), world)
    norm = setting.step()
    model = setting.engine.model
    return {"norm": norm, "codebooks": model.codebooks.pixel.dtype, "weights": model.llm.lm_head.weight.dtype}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    make_world(folder)
    (folder / "lines.txt").write_text("an apple a day\nkeeps the doctor away\nif thrown hard enough\n")
    Vocabulary.train(training_texts(tiny_config(folder).data.sources), 400).save_pretrained(folder / "vocabulary")
    llm = Qwen2Config(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    tokenizer = DualTokenizer.from_pretrained(str(folder / "tokenizer"))
    attention = replace(tokenizer.config, projection="attention")
    DualTokenizer(attention, tokenizer.tower).freeze().save_pretrained(str(folder / "attention"))
    torch.manual_seed(5)
    Qwen2ForCausalLM(llm).save_pretrained(folder / "llm")
    unified = reference(folder)
    unified.model.save_pretrained(folder / "export", unified.vocabulary, unified.tokenizer)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    run_ranks(two_ranks, 2, folder)
    return torch.load(folder / "seen.pt", weights_only=True)


@pytest.fixture(scope="module")
def one_process(folder: Path) -> Iterator[dict[str, Any]]:
    """The same global batch in one piece, without DeepSpeed."""
    precision = torch.backends.mkldnn.matmul.fp32_precision
    set_matmul_precision("fp32")
    yield in_one_piece(folder)
    torch.backends.mkldnn.matmul.fp32_precision = precision


def in_one_piece(folder: Path, **changes: Any) -> dict[str, Any]:
    unified, config = reference(folder, **changes), tiny_config(folder)
    data = replace(config.data, rows_per_batch=4 * config.data.rows_per_batch)
    step = next(iter(Loader(data, unified.vocabulary)))
    sums = unified.model(step.micro_batches[0])
    total = loss(sums, unified.model.config.loss_weights, step.num_targets)
    total.backward()
    return {"loss": total.item(), "gradients": {n: p.grad for n, p in unified.model.named_parameters()}}


def reference(folder: Path, **changes: Any) -> Unified:
    config, vocabulary = tiny_config(folder, **changes), Vocabulary.from_pretrained(folder / "vocabulary")
    world = World(0, 1, 0, 1, torch.device("cpu"))
    return begin(config.model, str(config.tokenizer), vocabulary, 0, EngineConfig(), world)


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    scale = max(grad.abs().max() for grad in expected.values())
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad, rtol=1e-5, atol=1e-5 * scale.item(), msg=name)


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name], expected[name])] == []


@pytest.mark.parametrize("name", [*ENGINES, "checkpointed"])
def test_two_ranks_with_two_micro_batches_have_the_gradient_of_one_large_batch(name, seen, one_process):
    assert_same_gradients(seen[name]["gradients"], one_process["gradients"])
    assert seen[name]["means"]["loss"] == pytest.approx(one_process["loss"], rel=1e-5)
    norm = math.sqrt(sum(grad.square().sum() for grad in one_process["gradients"].values()))
    assert seen[name]["norm"] == pytest.approx(norm, rel=1e-4)


def test_every_option_has_the_gradient_of_one_process_too(seen, folder):
    expected = in_one_piece(folder, **with_options(folder))
    assert_same_gradients(seen["options"]["gradients"], expected["gradients"])
    assert seen["options"]["means"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert seen["options"]["means"]["pixel.z"] > 0
    assert not any("post_quant" in name for name in seen["options"]["weights"])


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_resumed_engine_continues_bit_for_bit(name, seen):
    assert_equal(seen[f"{name} resumed"]["resumed"], seen[f"{name} resumed"]["uninterrupted"])
    assert seen[f"{name} resumed"]["noise"]


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(name, seen):
    skipped = seen[f"{name} skipped"]
    assert not any(math.isfinite(norm) for norm in skipped["norms"])
    assert_equal(skipped["after"], skipped["before"])
    assert math.isfinite(skipped["next"])


@pytest.mark.parametrize("name", UNEVEN)
def test_a_rank_that_lacks_something_neither_hangs_nor_changes_the_gradient(name, seen, folder):
    unified = reference(folder)
    batches = uneven_batches(folder, unified.vocabulary)
    assert [kind for kind, batch in batches.items() if not len(batch.pixel)] == ["text", "nothing"]
    assert batches["unlabelled"].num_targets == 8 and not batches["nothing"].num_targets
    num_targets = max(sum(batches[kind].num_targets for kind in UNEVEN[name]), 1)
    for kind in UNEVEN[name]:
        loss(unified.model(batches[kind]), unified.model.config.loss_weights, num_targets).backward()
    assert_same_gradients(seen["uneven"][name], {n: p.grad for n, p in unified.model.named_parameters()})


def test_parts_that_are_not_trainable_stay(seen):
    before, after = seen["frozen"]["before"], seen["frozen"]["after"]
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"visual_embedding", "pixel_head", "semantic_head"}
    assert seen["frozen"]["rates"].keys() == {"projector", "heads"}


def test_drawing_from_gathered_weights_leaves_training_as_it_was(seen, folder):
    assert_equal(seen["gathered"]["drawing"], seen["gathered"]["plain"])
    assert seen["gathered"]["codes"].shape == (1, 4, 3)


def test_pretrained_weights_load_straight_into_partitions(seen, folder):
    expected = load_file(folder / "llm" / "model.safetensors")
    weights = {n.removeprefix("llm."): w for n, w in seen["partitioned"]["weights"].items() if n.startswith("llm.")}
    assert_equal(weights, expected)
    assert seen["partitioned"]["partitioned"] and math.isfinite(seen["partitioned"]["norm"])


def test_an_exported_model_loads_straight_into_partitions(seen, folder, one_process):
    weights = load_file(folder / "export" / "model.safetensors")
    assert_equal(seen["continued"]["weights"], weights)
    assert seen["continued"]["partitioned"]
    assert_same_gradients(seen["continued"]["gradients"], one_process["gradients"])


def test_bf16_casts_the_weights_and_not_the_codebooks(seen):
    assert seen["bf16"]["weights"] == torch.bfloat16 and seen["bf16"]["codebooks"] == torch.float32
    assert seen["bf16"]["norm"] == pytest.approx(seen["zero 3"]["norm"], rel=0.05)


@pytest.mark.parametrize("name", ["zero 3 autocast", "zero 0 autocast", "checkpointed autocast"])
def test_autocast_is_close_to_fp32_and_keeps_weights_in_fp32(name, seen, one_process):
    autocast, fp32 = seen[name], one_process["gradients"]
    assert autocast["weights"] == [torch.float32]
    assert autocast["means"]["loss"] == pytest.approx(one_process["loss"], rel=1e-3)
    assert autocast["held out"] == autocast["means"]
    ours, theirs = (torch.cat([grads[n].flatten() for n in fp32]) for grads in (autocast["gradients"], fp32))
    assert 1e-3 < (ours - theirs).norm() / theirs.norm() < 0.02  # rounded, as bf16 is
    assert autocast["norm"] == pytest.approx(theirs.norm().item(), rel=0.01)
    assert math.isfinite(autocast["next"])


def test_a_checkpoint_of_another_number_of_processes_is_refused(seen, folder):
    checkpoint = latest_checkpoint(folder / "zero-3")
    engine = Engine.__new__(Engine)
    engine.world = World(0, 3, 0, 3, torch.device("cpu"))
    with pytest.raises(ValueError, match="saved by 2 processes and cannot continue with 3"):
        engine.load(checkpoint)


def test_deepspeed_gets_batch_size_precision_and_clipping_from_one_place():
    config = EngineConfig(accumulation=3, precision="bf16", offload_optimizer=True, persistence_threshold=7)
    generated = deepspeed_config(config, rows_per_batch=2, world_size=4, gradient_clipping=0.5)
    assert generated["train_batch_size"] == 24
    assert generated["train_micro_batch_size_per_gpu"] == 2
    assert generated["gradient_accumulation_steps"] == 3
    assert generated["gradient_clipping"] == 0.5
    assert generated["bf16"] == {"enabled": True}
    assert generated["zero_optimization"]["stage"] == 3
    assert generated["zero_optimization"]["stage3_param_persistence_threshold"] == 7
    assert generated["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert not any(key.startswith("stage3") for key in deepspeed_config(EngineConfig(1), 1, 1)["zero_optimization"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"zero_stage": 4},
        {"precision": "fp16"},
        {"accumulation": 0},
        {"zero_stage": 2, "offload_parameters": True},
        {"zero_stage": 0, "offload_optimizer": True},
    ],
)
def test_an_impossible_engine_is_refused(wrong):
    with pytest.raises(ValueError, match=r"engine\."):
        EngineConfig(**wrong)
