"""What `dualtoken info` says of a training config, from the paper's sizes and from files that are at hand."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from data.sources import SourceConfig
from mllm.config import LLMConfig
from mllm.llm import llm_from_config
from tests.train.tiny_mllm import make_world, tiny_document
from train.info import describe
from train.planned_model import KNOWN, sizes_of
from train.planned_rows import estimated

CONFIGS = Path(__file__).parents[2] / "configs"


def comment(text: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if line.startswith("# "))


@pytest.mark.parametrize("name", ["align", "pretrain", "instruct"])
def test_the_full_stages_are_planned_without_network_and_without_their_predecessors(name):
    shown = comment(describe(str(CONFIGS / f"full/{name}.yaml"), [], num_gpus=8))
    assert re.search(r"llm +3,085,938,688  " + ("frozen" if name == "align" else "learns"), shown)
    assert "an image: 729 positions, 731 with its delimiters; 23,328 bytes of codes" in shown
    assert "not at hand, so assumed of the data" in shown
    stages = [line.split()[1] for line in shown.split("memory of one GPU")[1].splitlines()[3:-2] if "#" in line]
    assert set(stages) >= {"0", "1", "2", "3"}


def test_a_step_is_counted_from_the_data_where_they_are_at_hand(tmp_path):
    make_world(tmp_path)
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_document(tmp_path)))
    shown = comment(describe(str(config), [], num_gpus=2))
    assert "an image: 4 positions, 6 with its delimiters; 48 bytes of codes" in shown
    assert "a step: 2 GPUs × 2 micro-batches × 2 rows = 768 positions" in shown
    epochs = re.findall(r"(\w+): 24 documents, an epoch is \d+ steps, seen [\d.]+ times", shown)
    assert epochs == ["caption", "draw", "conversation"]
    assert "assumed" not in shown
    shown = describe(str(config), ["model.visual_features=post_quant"], num_gpus=2)
    assert f"projector {(2 * 16 + 1) * 16 + 17 * 16:>30,}" in shown  # as wide as the tower


def test_features_behind_the_quantizers_are_as_wide_as_the_assumed_tower():
    shown = describe(str(CONFIGS / "full/align.yaml"), ["model.visual_features=post_quant"], num_gpus=8)
    assert f"projector {(2 * 1152 + 1) * 2048 + 2049 * 2048:>30,}" in shown


def test_a_mistake_in_data_that_are_at_hand_is_told_and_not_estimated_away(tmp_path):
    make_world(tmp_path)
    document = tiny_document(tmp_path)
    document["data"]["context_length"] = 4
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="context_length=4 is shorter than an image"):
        describe(str(tmp_path / "tiny.yaml"), [])


def test_the_known_models_have_their_published_numbers_of_parameters():
    published = [494_032_768, 1_543_714_304, 3_085_938_688, 7_615_616_512, 14_770_033_664, 6_738_415_616]
    for name, number in zip(KNOWN, published, strict=True):
        with torch.device("meta"):
            llm = llm_from_config(sizes_of(LLMConfig(path=name), 1), "sdpa", torch.float32)
        assert sum(p.numel() for p in llm.parameters()) == number, name


def test_an_unknown_model_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"sizes of llm\.path='nobody/nothing' are not known"):
        sizes_of(LLMConfig(path="nobody/nothing"), 1)


def test_estimated_rows_are_full():
    sources = [SourceConfig("draw", codes="c", weight=3.0), SourceConfig("text", path="t", weight=1.0)]
    rows = estimated(sources, context_length=1000, num_patches=100)
    assert rows.work.positions == pytest.approx(1000)
    assert rows.images == pytest.approx(0.75 * rows.documents)
    assert rows.work.visual_targets == pytest.approx(100 * rows.images)
