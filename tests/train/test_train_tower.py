"""The tower stage: SigLIP's loss, a run that continues, what a user may get wrong before it trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.tiny_tokenizer import make_world
from train.config import build_config
from train.run import read_log
from train.train_tower import TrainTowerConfig, build_siglip, main, sigmoid_loss, train_text_tokenizer


def tiny_config(folder: Path, steps: int, out: str) -> TrainTowerConfig:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    pictures = str(folder / "pictures.tar")
    document = {
        "out": str(folder / out),
        "data": {"shards": pictures, "batch_size": 5},
        "validation": pictures,
        "image_size": 16,
        "text_length": 8,
        "vocabulary_size": 30,
        "vision": size,
        "text": size,
        "loop": {"steps": steps, "log_every": 1, "checkpoint_every": 2},
        "schedule": {"kind": "constant", "warmup": 0.0},
    }
    return build_config(TrainTowerConfig, [document], "tiny")


def test_the_loss_is_that_of_transformers(tmp_path):
    torch.manual_seed(0)
    model = build_siglip(tiny_config(tmp_path, 1, "run"), 30)
    input_ids, pixel_values = torch.randint(30, (5, 8)), torch.randn(5, 3, 16, 16)
    output = model(input_ids=input_ids, pixel_values=pixel_values, return_loss=True)
    torch.testing.assert_close(sigmoid_loss(output.logits_per_image), output.loss)


def test_a_continued_run_ends_bit_identical(tmp_path):
    make_world(tmp_path)
    whole, parted = tiny_config(tmp_path, 4, "whole"), tiny_config(tmp_path, 4, "parted")
    main(whole)
    main(tiny_config(tmp_path, 2, "parted"))
    main(parted)
    ours, theirs = (load_file(Path(c.out) / "export/model.safetensors") for c in (whole, parted))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())
    assert [line["loss"] for line in read_log(f"{whole.out}/log.jsonl")] == [
        line["loss"] for line in read_log(f"{parted.out}/log.jsonl")
    ]
    with pytest.raises(ValueError, match=r"logit_bias: -10\.0 → -8\.0"):
        main(replace(parted, logit_bias=-8.0))


def test_a_vocabulary_too_small_for_the_letters_is_a_mistake(tmp_path):
    config = TrainTowerConfig(out=str(tmp_path), vocabulary_size=4)
    with pytest.raises(ValueError, match=r"vocabulary_size=4: .*smaller than required_chars"):
        train_text_tokenizer(["a red apple"], config)
    assert not (tmp_path / "spiece.model").exists()


def test_a_vocabulary_stays_once_there_are_weights_that_know_it(tmp_path):
    config = TrainTowerConfig(out=str(tmp_path), vocabulary_size=20)
    first, other = (len(train_text_tokenizer([caption], config)) for caption in ("a red apple", "aa"))
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    assert first > other == len(train_text_tokenizer(["a red apple"], config))
