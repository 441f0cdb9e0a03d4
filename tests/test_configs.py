"""Every shipped YAML and every command of the pipelines is understood; every model builds on the meta device."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

import dualtoken
from data.emoji_benchmarks import build_parser
from mllm.config import UnifiedConfig, VisualSpec
from mllm.llm import outline_llm, prepare
from mllm.lora import add_adapters
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of
from train.ablate_tokenizer import AblateTokenizerConfig, plan_run
from train.build_mllm import trained_as
from train.config import load_config
from train.engine_config import EngineConfig
from train.info import BUILDERS, describe, resolve
from train.parameters import group_parameters, part_of
from train.pipeline import load_pipeline
from train.tokenizer_parts import freeze_all_but
from train.tokenizer_parts import part_of as tokenizer_part_of
from train.train_mllm import TrainMllmConfig
from train.train_tokenizer import TrainTokenizerConfig
from train.train_tower import TrainTowerConfig

CONFIGS = Path(__file__).parents[1] / "configs"
LLMS = {  # the published configurations, and how many entries their vocabularies have with the control tokens
    "Qwen/Qwen2.5-0.5B": (
        Qwen2Config(
            hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
            num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
        ),
        151665,
    ),
    "Qwen/Qwen2.5-3B": (
        Qwen2Config(
            hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
            num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
        ),
        151665,
    ),
    "Qwen/Qwen2.5-7B": (
        Qwen2Config(
            hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
            num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False,
        ),
        151665,
    ),
    "meta-llama/Llama-2-7b-hf": (
        LlamaConfig(
            hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
            vocab_size=32006, tie_word_embeddings=False,
        ),
        32006,
    ),
}  # fmt: skip


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_resolves_to_its_stage_and_names_its_command(path):
    command, _ = resolve(str(path), [])
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    module = {"train": "train.train_mllm"}.get(command, f"dualtoken {command}")
    assert f"dualtoken {command}" in head or module in head, f"the comment of {path} does not say how to run it"


@pytest.mark.parametrize("name", ["tiny/demo", "tiny/demo-long", "small/chain"])
def test_the_commands_of_pipelines_are_understood(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    for stage in load_pipeline(f"configs/{name}.yaml").stages:
        program, *words = shlex.split(stage.command)
        if program == "python":
            assert words[:2] == ["-m", "data.emoji_benchmarks"]
            build_parser().parse_args(words[2:])
            continue
        args = dualtoken.parse(words)
        if getattr(args, "config", None) is not None:
            assert resolve(args.config, args.overrides)[0] == args.command


def test_every_variant_of_the_ablation_is_understood(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    config = load_config(AblateTokenizerConfig, "configs/tiny/ablation.yaml")
    assert len({plan_run(config, name, 0)[0].out for name in config.variants}) == 5


def tokenizer_config(path: str) -> TrainTokenizerConfig:
    return load_config(TrainTokenizerConfig, CONFIGS / f"{path}.yaml")


def tokenizer_on_meta(path: str) -> DualTokenizer:
    """The towers that the tiny and small ones grow from are those of the same folder."""
    config = tokenizer_config(path)
    vision = vision_config_of(config.tokenizer.tower) if path.startswith("full") else own_tower(Path(path).parent.name)
    with torch.device("meta"):
        tokenizer = DualTokenizer(config.tokenizer, VisionTower(vision))
    freeze_all_but(tokenizer, config.trainable)
    return tokenizer


def own_tower(folder: str) -> dict[str, Any]:
    tower = BUILDERS["train-tower"](load_config(TrainTowerConfig, CONFIGS / f"{folder}/tower.yaml"))
    return tower.config.vision_config.to_dict()


@pytest.fixture(scope="module")
def tokenizer() -> DualTokenizer:
    return tokenizer_on_meta("full/tokenizer_paper")


@pytest.mark.parametrize(
    ("name", "size", "side", "depth", "parameters"),
    [
        ("tokenizer_paper", 384, 27, 8, 609),
        ("tokenizer_released_384", 384, 27, 8, 639),
        ("tokenizer_released_256", 256, 16, 4, 639),
    ],
)
def test_the_full_tokenizers_have_the_published_sizes(name, size, side, depth, parameters):
    tokenizer = tokenizer_on_meta(f"full/{name}")
    with torch.device("meta"):
        output = tokenizer.eval()(torch.empty(2, 3, size, size))
    assert tokenizer.grid == (side, side)
    assert output.pixel_codes.shape == output.semantic_codes.shape == (2, side * side, depth)
    assert output.reconstruction.shape == (2, 3, size, size)
    assert tokenizer.pixel_quantizer.stacked_codebooks().shape == (1, 16384, 32)
    assert millions(tokenizer.tower) == pytest.approx(428, abs=1)
    assert millions(tokenizer) == pytest.approx(parameters, abs=1)
    assert f"{parameters} M parameters" in (CONFIGS / f"full/{name}.yaml").read_text()


def test_info_counts_the_parameters_of_a_full_tokenizer_without_a_network():
    shown = describe(str(CONFIGS / "full/tokenizer_released_384.yaml"), [])
    for part, parameters in (("tower", "428,225,600"), ("pixel_shortcut", "4,032,608"), ("decoder", "180,253,571")):
        assert any(line.split()[1:] == [part, parameters] for line in shown.splitlines())


@pytest.mark.parametrize(
    "name", ["full/tokenizer_warmup", "full/tokenizer_semantic", "tiny/tokenizer", "small/tokenizer"]
)
def test_the_other_tokenizers_train_the_parts_that_they_name(name):
    tokenizer, taps = tokenizer_on_meta(name), tokenizer_config(name).tokenizer
    trained = [name for name, p in tokenizer.named_parameters() if p.requires_grad]
    parts = {tokenizer_part_of(parameter, taps.pixel_layer, taps.semantic_layer) for parameter in trained}
    assert parts == set(tokenizer_config(name).trainable)


def stage_of(path: str) -> TrainMllmConfig:
    """The later stages bring the model of the first."""
    config = load_config(TrainMllmConfig, CONFIGS / f"{path}.yaml")
    if config.init is None:
        return config
    first = stage_of(f"{Path(path).parent}/{Path(config.init).parts[-2].replace('-', '_')}")
    assert trained_as(config.model, UnifiedConfig()) == config.model, "a later stage says how to train, no more"
    return replace(config, model=trained_as(config.model, first.model), vocabulary_size=first.vocabulary_size)


def on_meta(config: TrainMllmConfig, tokenizer: DualTokenizer) -> UnifiedModel:
    quantizer = tokenizer.config.pixel
    spec = VisualSpec(tokenizer.grid, quantizer.depth, quantizer.codebook_size, quantizer.code_dim, "meta")
    with torch.device("meta"):
        books = Codebooks(*(torch.empty(1, quantizer.codebook_size, quantizer.code_dim) for _ in range(2)))
        if config.model.llm.path is None:
            vocab_size = config.vocabulary_size
            llm = outline_llm(config.model.llm, vocab_size)
        else:
            sizes, vocab_size = LLMS[config.model.llm.path]
            llm = prepare(AutoModelForCausalLM.from_config(sizes), config.model.llm, vocab_size)
        return UnifiedModel(config.model, spec, vocab_size, books, llm=llm)


@pytest.mark.parametrize("name", ["tiny/pretrain", "tiny/instruct", "tiny/overfit", "small/pretrain", "small/instruct"])
def test_the_unified_models_from_nothing_have_the_sizes_that_they_say(name):
    config, tokenizer = stage_of(name), tokenizer_on_meta(f"{Path(name).parent}/tokenizer")
    model = on_meta(config, tokenizer)
    group_parameters(model, config.trainable, config.optimizer)
    assert all(p.requires_grad for p in model.parameters())
    if name.endswith("pretrain"):
        assert f"a Qwen2 of {millions(model.llm):.0f} M" in (CONFIGS / f"{name}.yaml").read_text()
    assert config.data.context_length > tokenizer.grid[0] * tokenizer.grid[1]


@pytest.mark.parametrize(
    ("name", "llm", "width"),
    [
        ("align", 3_085_938_688, 1024),
        ("pretrain", 3_085_938_688, 1024),
        ("instruct", 3_085_938_688, 1024),
        ("instruct_lora", 3_085_938_688, 1024),
        ("align_0.5b", 494_032_768, 512),
        ("align_7b", 7_615_616_512, 1024),
    ],
)
def test_the_full_unified_models_have_the_published_sizes(tokenizer, name, llm, width):
    config = stage_of(f"full/{name}")
    model = on_meta(config, tokenizer)
    assert sum(p.numel() for p in model.llm.parameters()) == llm
    assert config.vocabulary in (None, config.model.llm.path)
    assert model.pixel_head.classifiers.weight.shape == (8, 16384, width)
    assert len(model.pixel_head.blocks) == 3
    assert config.data.context_length > 729 + 100
    if config.has_adapters:
        add_adapters(model.llm, config.lora, 0)
    group_parameters(model, config.trainable, config.optimizer)
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == set(config.trainable)
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    assert round(adapters / 1e6) == (239 if config.has_adapters else 0)


def test_every_size_is_trained_on_the_same_rows():
    steps = [stage_of(f"full/{name}") for name in ("align", "align_0.5b", "align_7b")]
    assert {c.data.rows_per_batch * c.engine.accumulation for c in steps} == {8}
    rest = [
        replace(c, out="", vocabulary="", model=None, data=replace(c.data, rows_per_batch=1), engine=EngineConfig())
        for c in steps
    ]
    assert rest[0] == rest[1] == rest[2]


@pytest.mark.parametrize("visual_input", ["semantic", "pixel", "both"])
@pytest.mark.parametrize("name", ["llava_align", "llava_instruct"])
def test_the_controlled_experiment_reads_and_does_not_draw(tokenizer, name, visual_input):
    config = stage_of(f"full/{name}")
    model = on_meta(replace(config, model=replace(config.model, visual_input=visual_input)), tokenizer)
    added = 2 * 6 * 4096  # LLaMA-2 lacks the six control tokens
    assert sum(p.numel() for p in model.llm.parameters()) == 6_738_415_616 + added
    projector = (64 if visual_input == "both" else 32) * 4096 + 4096 + 4096 * 4096 + 4096
    assert sum(p.numel() for p in model.parameters()) == 6_738_415_616 + added + projector
    assert group_parameters(model, config.trainable, config.optimizer)
    assert {source.kind for source in config.data.sources} == {"conversation"}
