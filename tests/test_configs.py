"""Every shipped YAML resolves to its stage; the full ones build at the paper's sizes on the meta device."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mllm.config import VisualSpec
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DualTokenizer
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of
from train.config import load_config
from train.info import describe, resolve
from train.train_mllm import TrainMllmConfig
from train.train_tokenizer import TrainTokenizerConfig

CONFIGS = Path(__file__).parents[1] / "configs"
QWEN_3B = dict(V=151936, E=2048)


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_resolves_to_its_stage_and_names_its_command(path):
    command, _ = resolve(str(path), [])
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    module = {"train": "train.train_mllm"}.get(command, f"dualtoken {command}")
    assert f"dualtoken {command}" in head or module in head, f"the comment of {path} does not say how to run it"


def full_tokenizer(name: str) -> DualTokenizer:
    config = load_config(TrainTokenizerConfig, CONFIGS / f"full/{name}.yaml").tokenizer
    with torch.device("meta"):
        return DualTokenizer(config, VisionTower(vision_config_of(config.tower)))


@pytest.fixture(scope="module")
def tokenizer() -> DualTokenizer:
    return full_tokenizer("tokenizer_paper")


@pytest.mark.parametrize(
    ("name", "size", "side", "depth", "parameters"),
    [
        ("tokenizer_paper", 384, 27, 8, 609),
        ("tokenizer_released_384", 384, 27, 8, 639),
        ("tokenizer_released_256", 256, 16, 4, 639),
    ],
)
def test_the_full_tokenizers_have_the_published_sizes(name, size, side, depth, parameters):
    tokenizer = full_tokenizer(name)
    with torch.device("meta"):
        output = tokenizer.eval()(torch.empty(2, 3, size, size))
    assert tokenizer.grid == (side, side)
    assert output.pixel_codes.shape == output.semantic_codes.shape == (2, side * side, depth)
    assert output.reconstruction.shape == (2, 3, size, size)
    assert tokenizer.codebooks().pixel.shape == (1, 16384, 32)
    assert millions(tokenizer.tower) == pytest.approx(428, abs=1)
    assert millions(tokenizer) == pytest.approx(parameters, abs=1)
    assert f"{parameters} M parameters" in (CONFIGS / f"full/{name}.yaml").read_text()


def test_info_counts_the_parameters_of_a_full_tokenizer_without_a_network():
    shown = describe(str(CONFIGS / "full/tokenizer_released_384.yaml"), [])
    for part, parameters in (("tower", "428,225,600"), ("pixel_shortcut", "4,032,608"), ("decoder", "180,253,571")):
        assert any(line.split()[1:] == [part, parameters] for line in shown.splitlines())


@pytest.mark.parametrize("name", ["align", "pretrain", "instruct"])
def test_the_full_unified_model_has_the_papers_sizes(tokenizer, name):
    config = load_config(TrainMllmConfig, CONFIGS / f"full/{name}.yaml")
    align = load_config(TrainMllmConfig, CONFIGS / "full/align.yaml")
    sizes = align.model if config.init else config.model  # later stages bring the model of the first
    assert sizes.llm.path == "Qwen/Qwen2.5-3B"  # whose sizes are LLMConfig's defaults
    quantizer = tokenizer.config.pixel
    spec = VisualSpec(tokenizer.grid, quantizer.depth, quantizer.codebook_size, quantizer.code_dim, "meta")
    with torch.device("meta"):
        books = Codebooks(*(torch.empty(1, quantizer.codebook_size, quantizer.code_dim) for _ in range(2)))
        model = UnifiedModel(replace(sizes, llm=replace(sizes.llm, path=None)), spec, QWEN_3B["V"], books)
    assert millions(model.llm) == pytest.approx(3086, abs=2)
    assert model.pixel_head.classifiers.weight.shape == (8, 16384, sizes.heads.width)
    assert len(model.pixel_head.blocks) == 3
    assert config.data.context_length > 729 + 100
