"""A vocabulary of another family, which lacks the control tokens of images and turns."""

import pytest
from transformers import LlamaTokenizer

from data.vocabulary import REQUIRED_TOKENS, ImageSlot, Vocabulary

TEXTS = ["Draw: a red apple, 3d style", "What is this? A waving hand.\nuser assistant", "a_m <| c |> d"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """LLaMA-2's kind: spaces are ▁, and there is no byte-level alphabet."""
    folder = tmp_path_factory.mktemp("llama")
    LlamaTokenizer().train_new_from_iterator(TEXTS, 300).save_pretrained(folder)
    return folder


def test_missing_control_tokens_come_last_and_other_ids_stay(folder):
    plain, vocabulary = LlamaTokenizer.from_pretrained(folder), Vocabulary.from_pretrained(folder)
    assert vocabulary.new_ids == list(range(len(plain), len(plain) + len(REQUIRED_TOKENS)))
    assert vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.new_ids) == list(REQUIRED_TOKENS)
    assert vocabulary.encode("a red apple") == plain("a red apple", add_special_tokens=False).input_ids


def test_turns_and_images_are_spelt_with_them(folder):
    vocabulary = Vocabulary.from_pretrained(folder)
    ids = vocabulary.user_turn([ImageSlot(2), "\nWhat is this? <|im_end|>"])
    control = [i for i in ids if i in vocabulary.new_ids]
    one = vocabulary.image_pad
    assert control == [vocabulary.im_start, vocabulary.vision_start, one, one, vocabulary.vision_end, vocabulary.im_end]
    assert "What is this? <|im_end|>" in vocabulary.decode(ids)


def test_once_saved_nothing_is_new(folder, tmp_path):
    vocabulary = Vocabulary.from_pretrained(folder)
    vocabulary.save_pretrained(tmp_path)
    again = Vocabulary.from_pretrained(tmp_path)
    assert again.new_ids == [] and len(again) == len(vocabulary)
    assert again.drawing_prompt("a red apple") == vocabulary.drawing_prompt("a red apple")
