"""The tower stage: what a user may get wrong before it trains."""

import pytest

from train.train_tower import TrainTowerConfig, train_text_tokenizer


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
