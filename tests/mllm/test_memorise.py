"""Trained on a few captions, the model must give their images and answers back: everything together, no tolerance."""

from dataclasses import replace

import torch

from data.batch import Batch
from heads.sampling import SamplingConfig
from mllm.answer import answer
from mllm.config import LossWeights
from mllm.generate import generate_images
from mllm.loss import loss
from tokenizer import DualCodes

CAPTIONS = ["a red apple", "a waving hand", "a hand, 3d style"]


def test_a_memorised_caption_is_drawn_and_a_memorised_question_answered(make_model, documents, vocabulary, pack):
    def drawing(caption: str):
        prompt, tail = vocabulary.drawing_prompt(caption), [vocabulary.vision_end, vocabulary.im_end]
        ids = prompt + [vocabulary.image_pad] * 4 + tail
        return replace(documents["draw"], ids=ids, labels=[-100] * (len(prompt) + 4) + tail)

    batch: Batch = pack([[drawing(caption) for caption in CAPTIONS], [documents["ask"]]])
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        value = loss(model(batch), LossWeights(), batch.num_targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    codes = generate_images(model, vocabulary, CAPTIONS, SamplingConfig(cfg=1.0, temperature=0.0), seeds=[0, 1, 2])
    assert torch.equal(codes.pixel, batch.pixel[:3]) and torch.equal(codes.semantic, batch.semantic[:3])
    image = DualCodes(batch.pixel[3], batch.semantic[3])
    assert answer(model, vocabulary, ["What is this?"], [image]) == ["A hand."]
