"""The judging of drawn images, on features made by hand; and sheets of pictures."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import SiglipConfig, SiglipModel

from data.image_batches import ImageSet
from eval.generation import CaptionJudge, choose_prompts
from eval.judge import Judge
from eval.sheets import contact_sheet


class Pictures(ImageSet):
    """Ten plain pictures of five concepts; the colour is the style, the brightness the concept."""

    def __init__(self):
        self.pixels = torch.stack([torch.full((3, 4, 4), 20 * i, dtype=torch.uint8) for i in range(10)])
        self.metadata = [
            {"key": str(i), "captions": [f"{i}"], "concept": str(i // 2), "style": ("flat", "3d")[i % 2]}
            for i in range(10)
        ]


class PerfectJudge:
    """Knows every picture and caption: both become the one-hot vector of their number."""

    def images(self, pixel_values):
        return F.one_hot((pixel_values[:, 0, 0, 0] * 127.5 + 127.5).round().long() // 20, 10).float()

    def texts(self, texts):
        return F.one_hot(torch.tensor([int(t) for t in texts]), 10).float()


def test_prompts_are_of_distinct_subjects_and_the_same_for_a_seed():
    prompts = choose_prompts(Pictures(), 5, seed=0)
    assert len({int(c) // 2 for c in prompts.captions}) == 5
    assert choose_prompts(Pictures(), 5, seed=0).captions == prompts.captions
    with pytest.raises(ValueError, match="only 5 subjects"):
        choose_prompts(Pictures(), 6, seed=0)


def test_pictures_without_what_prompts_are_chosen_by_are_named():
    pictures = Pictures()
    del pictures.metadata[3]["style"]
    with pytest.raises(ValueError, match="JSON of picture '3' has no style"):
        choose_prompts(pictures, 5, seed=0)


def test_a_judge_that_cannot_be_read_is_named(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision, text = {**sizes, "image_size": 8, "patch_size": 4}, {**sizes, "vocab_size": 8}
    SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(FileNotFoundError, match="no SigLIP model"):
        Judge(str(tmp_path))


def test_the_right_pictures_score_one_and_shuffled_ones_zero():
    prompts = choose_prompts(Pictures(), 5, seed=0)
    judge = CaptionJudge(PerfectJudge(), prompts, Pictures())
    perfect = judge.score(prompts.pixel_values)
    assert perfect == {"retrieval_at_1": 1.0, "retrieval_over_chance": 5.0, "style_accuracy": 1.0}
    assert judge.score(prompts.pixel_values.roll(1, 0))["retrieval_at_1"] == 0.0


def test_a_sheet_holds_every_picture_in_rows():
    colours = ["red", "green", "blue"]
    sheet = contact_sheet([Image.new("RGB", (8, 8), c) for c in colours], columns=2, captions=["a", "b", "c"], scale=2)
    assert sheet.width == 2 * (16 + 4) + 4
    assert sheet.getpixel((12, 12)) == (255, 0, 0) and sheet.getpixel((32, 12)) == (0, 128, 0)
