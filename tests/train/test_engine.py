"""Two ranks under DeepSpeed against one process of plain autograd; saving, skipping, freezing, gathering.

Long because starting ranks takes many seconds: one start of two and one of one serve every question about the engine.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer, Qwen2Config, Qwen2ForCausalLM

from data.batch import Batch
from data.loader import Loader, Step
from data.packing import collate
from data.sources import SourceConfig, open_sources
from data.vocabulary import Vocabulary
from heads.sampling import SamplingConfig
from mllm.config import UnifiedConfig
from mllm.generate import generate_images
from mllm.lora import add_adapters
from mllm.loss import loss
from mllm.model import UnifiedModel
from mllm.pretrained import Unified
from tests.train.test_checkpoint_writer import files_of_at_most
from tests.train.tiny_mllm import make_world, run_ranks, tiny_config, tiny_document
from tokenizer import DualTokenizer
from train.build_mllm import begin, continue_from, training_texts
from train.checkpoint import latest_checkpoint, load_state
from train.checkpoint_writer import CheckpointWriter
from train.distributed import World, init_world
from train.engine import Engine
from train.engine_config import EngineConfig, deepspeed_config
from train.meter import LossMeter
from train.parameters import group_parameters, part_of
from train.precision import set_matmul_precision
from train.retention import KeepConfig
from train.train_mllm import TrainMllmConfig

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
    "zero 3, offloaded": EngineConfig(
        zero_stage=3, persistence_threshold=0, accumulation=2, offload_optimizer=True, offload_parameters=True
    ),
    "zero 2, offloaded": EngineConfig(zero_stage=2, accumulation=2, offload_optimizer=True),
}
HALF = {f"{name}, bf16": replace(ENGINES[name], precision="bf16") for name in ("zero 3", "zero 2", "zero 1", "zero 0")}
RESUMABLE = {name: ENGINES[name] for name in ("zero 3", "zero 2", "zero 1", "zero 0", "zero 3, offloaded")}
RESUMABLE |= {name: HALF[name] for name in ("zero 3, bf16", "zero 0, bf16")}
SKIPPING = ("zero 3", "zero 1", "zero 0", "zero 3, offloaded", "zero 3, bf16", "zero 0, bf16")
# What two ranks saved, and what one rank goes on with; the stage may change as well.
OTHER_WORLDS = {"zero 3": "zero 3", "zero 1": "zero 1", "zero 0": "zero 0", "zero 2": "zero 3"}
OTHER_WORLDS |= {"zero 3, bf16": "zero 3, bf16"}
CLIPPING = {"gradient_clipping": 0.1, "learning_rate": 1e-3, "weight_decay": 0.1}
ADDING_IN_FP32 = ("zero 3, bf16", "zero 2, bf16")
LOUD = 10.0  # so much larger is the first of two gradients that are clipped
ADAPTERS = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}
ADAPTED = {"trainable": ["lora", "projector", "heads"], "lora": ADAPTERS}
ADAPTERS_ALONE = {**ADAPTED, "trainable": ["lora"]}
DROPPING = {**ADAPTED, "lora": {**ADAPTERS, "dropout": 0.5}}


class Setting:
    """Model, data and engine of one rank, all from seeds."""

    def __init__(self, folder: Path, engine: EngineConfig, world: World, checkpointing: bool = False, **changes: Any):
        config = tiny_config(folder, **changes)
        llm = replace(config.model.llm, gradient_checkpointing=checkpointing)
        vocabulary = Vocabulary.from_pretrained(config.vocabulary or folder / "vocabulary")
        model, tokenizer = replace(config.model, llm=llm), str(config.tokenizer)
        if config.init is None:
            self.unified = begin(model, tokenizer, vocabulary, 0, engine, world)
        else:
            self.unified = continue_from(config.init, model, engine, world)
        self.partitioned_at_birth = all(hasattr(p, "ds_id") for p in self.unified.model.llm.parameters())
        adapt(self.unified.model, config)
        groups = group_parameters(self.unified.model, config.trainable, config.optimizer)
        rows = config.data.rows_per_batch
        self.engine = Engine(engine, world, self.unified.model, groups, config.optimizer, rows, config.ema)
        self.loader = Loader(config.data, vocabulary, None, world.rank, world.size, engine.accumulation)
        self.steps, self.num_steps = iter(self.loader), 0
        self.meter = LossMeter(world, self.unified.model.config.loss_weights)

    def backward(self, batches: list[Batch], num_targets: int, factor: float = 1.0) -> None:
        for batch in batches:
            sums = self.engine(batch)
            self.engine.backward(loss(sums, self.meter.weights, num_targets) * factor)
            self.meter.add(sums)

    def step(self, factor: float = 1.0) -> float:
        step = next(self.steps)
        self.backward(step.micro_batches, step.num_targets, factor)
        norm = self.engine.step()
        self.engine.update_average(self.num_steps)
        self.num_steps += 1
        return norm

    def resume(self, checkpoints: Path) -> None:
        state = self.engine.load(latest_checkpoint(checkpoints))
        self.loader.load_state_dict(state["loader"])
        self.steps, self.num_steps = iter(self.loader), state["step"]

    def averages(self) -> dict[str, Tensor]:
        with self.engine.averaged():
            return self.engine.state_dict()


def adapt(model: UnifiedModel, config: TrainMllmConfig) -> None:
    """Adapters, where the config has some, that do something: B begins at zero, and A then without a gradient."""
    if config.has_adapters:
        add_adapters(model.llm, config.lora, seed=3)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter, std=0.1)


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
    for name in SKIPPING:
        seen[f"{name} skipped"] = skip_a_step(folder, {**ENGINES, **HALF}[name], world)
    seen["full disk"] = fill_the_disk_of_one_rank(folder, world)
    for name, engine in ENGINES.items():
        seen[f"{name} adapted"] = compare_to_one_process(folder, engine, world, **ADAPTED)
    seen["checkpointed adapted"] = compare_to_one_process(folder, ENGINES["zero 3"], world, True, **ADAPTED)
    seen["adapters alone"] = compare_to_one_process(folder, ENGINES["zero 3"], world, True, **ADAPTERS_ALONE)
    seen["adapted resumed"] = save_and_resume(folder, "zero 3", world, **DROPPING)
    seen["foreign"] = load_foreign(folder, world)
    seen["uneven"] = uneven(folder, world)
    seen["frozen"] = freeze(folder, world)
    seen["gathered"] = gather(folder, world)
    seen["partitioned"] = load_partitioned(folder, world)
    seen["continued"] = continue_partitioned(folder, world)
    for name in ("zero 3", "zero 0"):
        seen[f"{name} autocast"] = autocast(folder, replace(ENGINES[name], precision="autocast"), world)
    seen["checkpointed autocast"] = autocast(folder, replace(ENGINES["zero 3"], precision="autocast"), world, True)
    for name, engine in HALF.items():
        seen[name] = half_precision(folder, engine, world)
    for name in ADDING_IN_FP32:
        seen[f"{name} small"] = add_small_gradients(folder, HALF[name], world)
    if world.is_main:
        torch.save(seen, folder / "seen.pt")


def with_options(folder: Path) -> dict[str, Any]:
    """Every option of heads, loss and visual embedding, and a tokenizer whose projections are causal attention."""
    llm = tiny_document(folder)["model"]["llm"]
    return {"tokenizer": str(folder / "attention"), "model": {"llm": llm, **OPTIONS}}


def compare_to_one_process(
    folder: Path, config: EngineConfig, world: World, checkpointing: bool = False, **changes: Any
) -> dict:
    setting = Setting(folder, config, world, checkpointing, optimizer=CLIPPING, **changes)
    step = next(setting.steps)
    setting.backward(step.micro_batches, step.num_targets, LOUD)
    grads = {name: grad / LOUD for name, grad in gradients(setting.engine.model).items()}
    norm, means = setting.engine.step() / LOUD, setting.meter.means()
    seen = {"norm": norm, "part norms": {part: own / LOUD for part, own in setting.engine.part_norms().items()}}
    setting.step()
    return {**seen, "gradients": grads, "means": means, "weights": setting.engine.state_dict()}


def save_and_resume(folder: Path, name: str, world: World, **changes: Any) -> dict:
    first = Setting(folder, RESUMABLE[name], world, ema={"decay": 0.6}, **changes)
    checkpoints = folder / " ".join([name, *changes])
    first.step()
    first.step()
    first.averages()  # as validation would look at them
    torch.rand(7)  # a generator state that a fresh start does not have
    writer = CheckpointWriter(checkpoints, KeepConfig(), background=False, world=world)
    writer.save(2, first.engine.files({"step": 2, "loader": first.loader.state_dict()}))
    saved = {"saved": first.engine.state_dict(), "saved average": first.averages()}
    expected_noise = torch.rand(3)
    first.step()
    second = Setting(folder, RESUMABLE[name], world, ema={"decay": 0.6}, **changes)
    second.resume(checkpoints)
    same_noise = torch.equal(torch.rand(3), expected_noise)
    second.step()
    ends = {"uninterrupted": first.engine.state_dict(), "resumed": second.engine.state_dict()}
    averages = {"uninterrupted average": first.averages(), "resumed average": second.averages()}
    return {**saved, **ends, **averages, "noise": same_noise}


def fill_the_disk_of_one_rank(folder: Path, world: World) -> list[str]:
    """What each rank says."""
    setting = Setting(folder, ENGINES["zero 3"], world)
    writer = CheckpointWriter(folder / "zero 3", KeepConfig(), background=True, world=world)
    with files_of_at_most(10_000) if world.rank == 1 else nullcontext():
        try:
            writer.save(9, setting.engine.files({"step": 9}))
            writer.finish()
        except OSError as error:
            return world.gather(str(error))
    return world.gather("")


def one_rank(folder: Path) -> None:
    """What two ranks saved, continued by one; between two ZeRO stages as well."""
    set_matmul_precision("fp32")
    world, seen = init_world(), {}
    for saved, name in OTHER_WORLDS.items():
        setting = Setting(folder, replace(RESUMABLE[name], accumulation=4), world, ema={"decay": 0.6})
        setting.resume(folder / saved)
        begun = {"resumed": setting.engine.state_dict(), "resumed average": setting.averages()}
        noise = torch.rand(3)
        setting.step()
        seen[saved] = {**begun, "noise": noise, "next": setting.engine.state_dict(), "next average": setting.averages()}
    heads_alone = Setting(folder, replace(ENGINES["zero 1"], accumulation=4), world, trainable=["heads"])
    try:
        heads_alone.resume(folder / "zero 1")
    except ValueError as error:
        seen["mistake"] = str(error)
    torch.save(seen, folder / "seen-by-one.pt")


def skip_a_step(folder: Path, config: EngineConfig, world: World) -> dict:
    setting = Setting(folder, config, world)
    setting.step()
    before = setting.engine.state_dict()
    norm = setting.step(factor=math.nan if world.rank == 1 else 1.0)
    after, parts = setting.engine.state_dict(), setting.engine.part_norms()
    return {"norms": world.gather(norm), "parts": parts, "before": before, "after": after, "next": setting.step()}


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
    writer = CheckpointWriter(folder / "frozen", KeepConfig(), background=False, world=world)
    writer.save(1, setting.engine.files({"step": 1, "loader": setting.loader.state_dict()}))
    after = setting.engine.state_dict()
    again = Setting(folder, ENGINES["zero 3"], world, trainable=["projector", "heads"])
    again.resume(folder / "frozen")
    resumed, mistake = again.engine.state_dict(), ""
    with torch.no_grad():
        for parameter in again.engine.model.llm.parameters():
            parameter.ds_tensor.add_(1e-3)  # as if `init` had been trained anew
    try:
        again.resume(folder / "frozen")
    except ValueError as error:
        mistake = str(error)
    seen = {"before": before, "after": after, "resumed": resumed, "mistake": mistake}
    return {**seen, "rates": setting.engine.learning_rates}


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


@contextmanager
def counting_whole() -> Iterator[list[int]]:
    """How many weights were whole on this rank at once, whenever one was made or gathered inside."""
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters, Init, ZeroParamStatus

    made: list[nn.Parameter] = []
    counts: list[int] = []

    def count() -> None:
        counts.append(sum(p.ds_numel for p in made if p.ds_status == ZeroParamStatus.AVAILABLE))

    convert, enter = Init._convert_to_deepspeed_param, GatheredParameters.__enter__

    def convert_and_count(self: Any, parameter: nn.Parameter) -> None:
        convert(self, parameter)
        made.append(parameter)
        count()

    def enter_and_count(self: Any) -> None:
        enter(self)
        count()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Init, "_convert_to_deepspeed_param", convert_and_count)
        patch.setattr(GatheredParameters, "__enter__", enter_and_count)
        yield counts


def load_partitioned(folder: Path, world: World) -> dict:
    heads = tiny_document(folder)["model"]["heads"]
    with counting_whole() as counts:
        config = tiny_config(folder, model={"llm": {"path": str(folder / "llm")}, "heads": heads}).model
        vocabulary = Vocabulary.from_pretrained(folder / "vocabulary")
        begin(config, str(folder / "tokenizer"), vocabulary, 0, ENGINES["zero 3"], world)
    setting = Setting(folder, ENGINES["zero 3"], world, model={"llm": {"path": str(folder / "llm")}, "heads": heads})
    weights = setting.engine.state_dict()
    seen = {"weights": weights, "partitioned": setting.partitioned_at_birth, "norm": setting.step()}
    return {**seen, "whole": max(counts)}


def load_foreign(folder: Path, world: World) -> dict:
    """A pretrained Llama whose vocabulary lacks the control tokens, read into partitions and given them."""
    model = {"llm": {"path": str(folder / "llama")}, "heads": tiny_document(folder)["model"]["heads"]}
    setting = Setting(folder, ENGINES["zero 3"], world, model=model, vocabulary=str(folder / "llama"))
    return {"weights": setting.engine.state_dict(), "norm": setting.step(), "next": setting.step()}


def continue_partitioned(folder: Path, world: World) -> dict:
    """An exported model of an earlier stage, read into partitions."""
    with counting_whole() as counts:
        continue_from(str(folder / "export"), UnifiedConfig(), ENGINES["zero 3"], world)
    setting = Setting(folder, ENGINES["zero 3"], world, init=str(folder / "export"), tokenizer=None, model={})
    weights = setting.engine.state_dict()
    step = next(setting.steps)
    setting.backward(step.micro_batches, step.num_targets)
    grads = gradients(setting.engine.model)
    setting.engine.step()
    return {"weights": weights, "partitioned": setting.partitioned_at_birth, "gradients": grads, "whole": max(counts)}


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


def half_precision(folder: Path, engine: EngineConfig, world: World) -> dict:
    from deepspeed.utils import safe_get_full_fp32_param

    setting = Setting(folder, engine, world)
    norm, part_norms = setting.step(), setting.engine.part_norms()
    setting.step()
    model = setting.engine.model
    seen = {"norm": norm, "part norms": part_norms, "weights": setting.engine.state_dict()}
    if engine.zero_stage > 0:
        seen["masters"] = {name: safe_get_full_fp32_param(p).clone() for name, p in model.named_parameters()}
    return {**seen, "codebooks": model.codebooks.pixel.dtype}


def add_small_gradients(folder: Path, engine: EngineConfig, world: World) -> list[float]:
    """Norms of one micro-batch's gradient g, and of g + 16 · 2⁻¹⁰ g; g + 2⁻¹⁰ g is g in bf16."""
    setting = Setting(folder, replace(engine, accumulation=17), world, optimizer={"learning_rate": 0.0})
    batch, norms = next(setting.steps).micro_batches[0], []
    for small in (0.0, 2.0**-10):
        for factor in (1.0, *(16 * [small])):
            setting.backward([batch], 100, factor)
        norms.append(setting.engine.step())
    return norms


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
    foreign = LlamaTokenizer().train_new_from_iterator(training_texts(tiny_config(folder).data.sources), 300)
    foreign.save_pretrained(folder / "llama")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(foreign))).save_pretrained(folder / "llama")
    unified = reference(folder)
    unified.model.save_pretrained(folder / "export", unified.vocabulary, unified.tokenizer)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    run_ranks(two_ranks, 2, folder)
    return torch.load(folder / "seen.pt", weights_only=True)


@pytest.fixture(scope="module")
def seen_by_one(seen, folder: Path) -> dict[str, Any]:
    run_ranks(one_rank, 1, folder)
    return torch.load(folder / "seen-by-one.pt", weights_only=True)


@pytest.fixture(scope="module")
def one_process(folder: Path) -> Iterator[dict[str, Any]]:
    """The same global batch in one piece, without DeepSpeed."""
    precision = torch.backends.mkldnn.matmul.fp32_precision
    set_matmul_precision("fp32")
    yield {**large_batch(folder), **plain_training(folder)}
    torch.backends.mkldnn.matmul.fp32_precision = precision


def large_batch(folder: Path, **changes: Any) -> dict[str, Any]:
    unified, config = reference(folder, **changes), tiny_config(folder, **changes)
    adapt(unified.model, config)
    group_parameters(unified.model, config.trainable, config.optimizer)
    step = next(iter(large_steps(config, unified.vocabulary)))
    total = loss(unified.model(step.micro_batches[0]), unified.model.config.loss_weights, step.num_targets)
    total.backward()
    grads = {n: p.grad for n, p in unified.model.named_parameters() if p.requires_grad}
    return {"loss": total.item(), "gradients": grads}


def plain_training(folder: Path) -> dict[str, Any]:
    unified, config = reference(folder), tiny_config(folder, optimizer=CLIPPING)
    first, second = islice(large_steps(config, unified.vocabulary), 2)
    seen = {"start": {name: parameter.detach() for name, parameter in unified.model.named_parameters()}}
    for name, clipping in (("clipped", CLIPPING["gradient_clipping"]), ("not clipped", math.inf)):
        seen[name] = two_plain_steps(reference(folder).model, config, [(first, LOUD), (second, 1.0)], clipping)
    return seen


def large_steps(config: TrainMllmConfig, vocabulary: Vocabulary) -> Loader:
    return Loader(replace(config.data, rows_per_batch=4 * config.data.rows_per_batch), vocabulary)


def two_plain_steps(
    model: nn.Module, config: TrainMllmConfig, steps: list[tuple[Step, float]], clipping: float
) -> dict[str, Tensor]:
    groups = group_parameters(model, config.trainable, config.optimizer)
    options = [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups]
    adamw = torch.optim.AdamW(options, betas=tuple(config.optimizer.betas))
    for step, factor in steps:
        adamw.zero_grad()
        (factor * loss(model(step.micro_batches[0]), model.config.loss_weights, step.num_targets)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clipping)
        adamw.step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Of what two trainings have changed since `start`."""
    change = torch.cat([(theirs[name] - start[name]).flatten() for name in start])
    difference = torch.cat([(ours[name].float() - theirs[name]).flatten() for name in start])
    return (difference.norm() / change.norm()).item()


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


@pytest.mark.parametrize("name", [*ENGINES, "checkpointed"])
def test_two_steps_of_clipped_adamw_are_those_of_one_process(name, seen, one_process):
    """The second gradient counts as much as the first, which is ten times larger: both are clipped to one norm."""
    start, clipped, not_clipped = (one_process[key] for key in ("start", "clipped", "not clipped"))
    assert relative_difference(seen[name]["weights"], clipped, start) < 0.01
    assert relative_difference(not_clipped, clipped, start) > 0.1


@pytest.mark.parametrize("name", [*ENGINES, "checkpointed"])
def test_the_norms_of_the_parts_are_those_of_one_large_batch_and_add_up_in_squares(name, seen, one_process):
    squares: dict[str, float] = {}
    for parameter, grad in one_process["gradients"].items():
        squares[part_of(parameter)] = squares.get(part_of(parameter), 0.0) + grad.square().sum().item()
    norms = seen[name]["part norms"]
    assert norms == {part: pytest.approx(math.sqrt(square), rel=1e-4) for part, square in squares.items()}
    assert math.sqrt(sum(norm**2 for norm in norms.values())) == pytest.approx(seen[name]["norm"], rel=1e-5)


@pytest.mark.parametrize("name", [*ENGINES, "checkpointed"])
def test_so_they_have_of_adapters(name, seen, folder):
    expected = large_batch(folder, **ADAPTED)
    assert {"lora_A", "lora_B"} <= {part for name in expected["gradients"] for part in name.split(".")}
    assert all(grad.any() for name, grad in expected["gradients"].items() if ".lora_" in name)
    assert_same_gradients(seen[f"{name} adapted"]["gradients"], expected["gradients"])
    assert seen[f"{name} adapted"]["means"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_adapters_learn_alone_too(seen, folder):
    assert_same_gradients(seen["adapters alone"]["gradients"], large_batch(folder, **ADAPTERS_ALONE)["gradients"])


def test_adapters_with_dropout_resume_bit_for_bit(seen):
    assert_equal(seen["adapted resumed"]["resumed"], seen["adapted resumed"]["uninterrupted"])


def test_a_vocabulary_without_the_control_tokens_gets_them_in_partitions(seen, folder):
    weights, before = seen["foreign"]["weights"], load_file(folder / "llama" / "model.safetensors")
    ids = Vocabulary.from_pretrained(folder / "llama").new_ids
    assert len(ids) == 6
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = before[name].mean(0)
        assert torch.equal(weights[f"llm.{name}"][: min(ids)], before[name])
        torch.testing.assert_close(weights[f"llm.{name}"][ids], mean.expand(6, -1))
    assert math.isfinite(seen["foreign"]["norm"]) and math.isfinite(seen["foreign"]["next"])


def test_every_option_has_the_gradient_of_one_process_too(seen, folder):
    expected = large_batch(folder, **with_options(folder))
    assert_same_gradients(seen["options"]["gradients"], expected["gradients"])
    assert seen["options"]["means"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert seen["options"]["means"]["pixel.z"] > 0
    assert not any("post_quant" in name for name in seen["options"]["weights"])


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_resumed_engine_continues_bit_for_bit(name, seen):
    resumed = seen[f"{name} resumed"]
    assert_equal(resumed["resumed"], resumed["uninterrupted"])
    assert_equal(resumed["resumed average"], resumed["uninterrupted average"])
    assert resumed["noise"]


@pytest.mark.parametrize("name", ["zero 3", "zero 1", "zero 0"])
def test_the_average_is_that_of_the_weights(name, seen):
    """γ is 0.1, 2/11 and 0.25 in the first three steps."""
    resumed = seen[f"{name} resumed"]
    for key, average in resumed["saved average"].items():
        expected = average + 0.75 * (resumed["uninterrupted"][key] - average)
        torch.testing.assert_close(resumed["uninterrupted average"][key], expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(average, resumed["saved"][key])


@pytest.mark.parametrize("name", OTHER_WORLDS)
def test_another_number_of_ranks_goes_on_from_the_same_weights_and_average(name, seen, seen_by_one):
    saved, one = seen[f"{name} resumed"], seen_by_one[name]
    assert_equal(one["resumed"], saved["saved"])
    assert_equal(one["resumed average"], saved["saved average"])


@pytest.mark.parametrize("name", sorted(OTHER_WORLDS.keys() - HALF.keys()))
def test_and_learns_the_same(name, seen, seen_by_one):
    """The third step of AdamW: its moments and its count matter."""
    saved, one = seen[f"{name} resumed"], seen_by_one[name]
    assert relative_difference(one["next"], saved["uninterrupted"], saved["saved"]) < 0.01
    assert relative_difference(one["next average"], saved["uninterrupted average"], saved["saved average"]) < 0.01


def test_its_generators_start_anew(seen_by_one):
    noises = [tuple(seen_by_one[name]["noise"].tolist()) for name in OTHER_WORLDS]
    assert len(set(noises)) == 1


def test_a_checkpoint_of_other_trainable_parts_is_refused(seen_by_one):
    assert re.search(r"llm\.model\.embed_tokens\.weight is \[\d+, 16\] there and None here", seen_by_one["mistake"])


def test_a_full_disk_of_one_rank_stops_all_and_the_last_checkpoint_stays(seen, folder):
    assert len(seen["full disk"]) == 2 and len(set(seen["full disk"])) == 1
    assert "shard-00001.pt" in seen["full disk"][0] and "untouched" in seen["full disk"][0]
    assert [path.name for path in (folder / "zero 3").iterdir()] == ["step-000002"]


def test_a_checkpoint_holds_every_weight_and_moment_once(seen, folder):
    num_parameters = sum(weight.numel() for weight in seen["zero 3 resumed"]["saved"].values())
    for name in ENGINES.keys() & RESUMABLE.keys():
        size = sum(path.stat().st_size for path in latest_checkpoint(folder / name).glob("shard-*"))
        assert 1 < size / (16 * num_parameters) < 1.5  # fp32 weight, two moments, average


@pytest.mark.parametrize("name", SKIPPING)
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(name, seen):
    skipped = seen[f"{name} skipped"]
    assert not any(math.isfinite(norm) for norm in [*skipped["norms"], *skipped["parts"].values()])
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


def test_they_are_not_saved_and_must_be_what_they_were(seen, folder):
    assert_equal(seen["frozen"]["resumed"], seen["frozen"]["after"])
    shapes = load_state(latest_checkpoint(folder / "frozen") / "shard-00000.pt")["shapes"]
    assert shapes and not any(name.startswith("llm.") for name in shapes)
    assert "other frozen weights or codebooks" in seen["frozen"]["mistake"]


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


@pytest.mark.parametrize("name", ["partitioned", "continued"])
def test_while_it_loads_no_more_than_one_module_is_whole_on_a_rank(name, seen):
    sizes = [weight.numel() for key, weight in seen[name]["weights"].items() if key.startswith("llm.")]
    assert len(sizes) > 20
    assert max(sizes) <= seen[name]["whole"] < 1.01 * max(sizes) < 0.8 * sum(sizes)


@pytest.mark.parametrize("name", HALF)
def test_bf16_casts_the_weights_and_not_the_codebooks(name, seen):
    half = seen[name]
    assert {weight.dtype for weight in half["weights"].values()} == {torch.bfloat16}
    assert half["codebooks"] == torch.float32 and half["norm"] == pytest.approx(seen["zero 3"]["norm"], rel=0.05)
    assert math.sqrt(sum(norm**2 for norm in half["part norms"].values())) == pytest.approx(half["norm"], rel=1e-3)


@pytest.mark.parametrize("name", ADDING_IN_FP32)
def test_small_micro_batches_do_not_vanish_in_bf16(name, seen):
    one, all_of_them = seen[f"{name} small"]
    assert all_of_them / one == pytest.approx(1 + 16 * 2**-10, rel=1e-4)


@pytest.mark.parametrize("name", ["zero 3, bf16", "zero 1, bf16"])
def test_bf16_keeps_masters_in_fp32(name, seen):
    masters, weights = seen[name]["masters"], seen[name]["weights"]
    assert_equal({key: master.bfloat16() for key, master in masters.items()}, weights)
    finer = [(master != master.bfloat16().float()).float().mean() for master in masters.values()]
    assert torch.stack(finer).mean() > 0.9


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
