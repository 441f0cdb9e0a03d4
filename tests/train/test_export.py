"""`dualtoken export` of a finished model: precision, shards, model card, mistakes. Checkpoints: test_train_mllm.py."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import dualtoken
from data.vocabulary import Vocabulary
from eval.manifest import hash_model
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from mllm.weights import WeightFiles
from tests.train.tiny_mllm import TOWER, make_world, tiny_config
from tokenizer import DualTokenizer
from train.config import save_config
from train.export import export


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run, its weights random."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    run = folder / "run"
    tokenizer = DualTokenizer.from_pretrained(folder / "tokenizer")
    vocabulary = Vocabulary.train(["a red apple"], 300)
    config = UnifiedConfig(
        llm=LLMConfig(**TOWER, num_key_value_heads=1, max_position_embeddings=128),
        heads=DepthHeadConfig(num_layers=1, width=16, num_heads=2, mlp_width=32),
    )
    model = UnifiedModel(config, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks())
    model.save_pretrained(run / "export", vocabulary, tokenizer)
    save_config(tiny_config(folder, trainable=["llm", "heads"]), run / "config.yaml")
    losses = {"pixel": {"loss": 1.5, "unigram": 2.0}}
    (run / "result.json").write_text(json.dumps({"step": 1234, "ntp": losses}))
    return run


def evaluated(folder: Path, model: str) -> Path:
    """OUT of `dualtoken evaluate`, as far as the card reads it."""
    folder.mkdir(parents=True)
    task = {"headline": "accuracy", "partial": False, "model": {"accuracy": 61.5}, "chance": {"accuracy": 50}}
    task["blind"] = {"accuracy": 52}
    (folder / "scores.json").write_text(json.dumps({"splits": {"pope": "val"}, "tasks": {"pope": task}}))
    (folder / "manifest.json").write_text(json.dumps({"model": model}))
    return folder


def test_another_precision_in_shards(run, tmp_path):
    export(str(run), str(tmp_path / "out"), "bf16", "10KB")
    before, after = WeightFiles(run / "export"), WeightFiles(tmp_path / "out")
    assert set(before) == set(after) and after.stored_as == "BF16"
    assert all(torch.equal(before[name].bfloat16(), after[name]) for name in before)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config.pop("dtype") == "bfloat16"
    assert config == {k: v for k, v in json.loads((run / "export/config.json").read_text()).items() if k != "dtype"}
    again = export(str(tmp_path / "out"), str(tmp_path / "out"), "fp32")  # in its own place
    assert WeightFiles(again).stored_as == "F32" and not list(again.glob("model-*")) and (again / "vocabulary").is_dir()


def test_the_card_tells_data_steps_figures_and_licence(run, tmp_path):
    evaluated(run.parent / "eval/val", hash_model(run / "export"))
    evaluated(run.parent / "eval/other", "the hash of another model")
    card = (export(str(run), str(tmp_path / "card"), license="MIT") / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "mit" and header["pipeline_tag"] == "any-to-any"
    for text in ("1,234 steps", "llm, heads trained", "draw: ", "24 pictures of `noise`", "questions.json",
                 "| loss on held-out documents, pixel | 1.500 nats | unigram 2.000 |",
                 "| pope accuracy, val | 61.5 | chance 50, blind 52 |", "## Licence\n\nMIT",
                 "8 × 8 pixels"):  # fmt: skip
        assert text in card, card
    assert card.count("pope accuracy") == 1 and "$" not in card


def test_a_card_states_no_licence_and_no_history_that_nobody_knows(run, tmp_path):
    bare = export(str(run), str(tmp_path / "bare"))
    card = (export(str(bare), str(tmp_path / "again")) / "README.md").read_text()
    assert "license:" not in card and "Not stated" in card and "without its run folder" in card and "None yet" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "neither an exported model, nor a run folder"),
        (["{run}", "--dtype", "float7"], "float7"),
        (["{run}", "--max-shard-size", "many"], "is no size"),
        (["{run}", "--out", "{run}"], "is no exported model"),
        (["{run}", "--scores", "{foreign}"], "of another model"),
    ],
)
def test_mistakes_are_one_sentence(run, tmp_path, capsys, words, message):
    foreign = evaluated(tmp_path / "foreign", "another")
    words = [word.format(run=run, foreign=foreign) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert dualtoken.main(["export", *words, *out]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and (run / "config.yaml").exists()
