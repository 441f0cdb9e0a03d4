"""The model's side of an evaluation: a picture is tokenized once, questions are answered in batches of like length."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from data.images import ImageTransform, load_image
from eval.benchmark import Question
from mllm.answer import answer
from mllm.pretrained import Unified
from tokenizer import DualCodes

_GREY = Image.new("RGB", (64, 64), (128, 128, 128))


class Responder:
    """Answers questions with a unified model. `blind` shows a uniform grey picture in place of every real one."""

    def __init__(
        self,
        unified: Unified,
        batch_size: int,
        transform: ImageTransform | None = None,
        blind: bool = False,
        quiet: bool = False,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.unified = unified
        self.batch_size = batch_size
        self.transform = transform or ImageTransform(unified.tokenizer.image_size, unified.tokenizer.config.crop)
        self.blind = blind
        self.quiet = quiet  # no progress bar: one process shows one
        self._digests: dict[Path, str] = {}
        # Codes by the digest of the picture's file, so that a picture under many names, or asked about by several
        # benchmarks, is tokenized once. uint16: the whole validation split of COCO takes a gigabyte.
        self._codes: dict[str, DualCodes] = {}

    def __call__(self, questions: Sequence[Question], max_new_tokens: int) -> Iterator[tuple[int, str]]:
        """(place, answer without surrounding spaces) of each question, batch after batch."""
        lengths = [len(self.unified.vocabulary.encode(question.prompt)) for question in questions]
        # The longest first: what does not fit into memory fails at once, and the estimated time left is a ceiling.
        order = sorted(range(len(questions)), key=lambda place: -lengths[place])
        with tqdm(total=len(questions), desc="answering", unit="question", disable=self.quiet or None) as progress:
            for start in range(0, len(order), self.batch_size):
                places = order[start : start + self.batch_size]
                texts = self._answer([questions[place] for place in places], max_new_tokens)
                yield from zip(places, texts, strict=True)
                progress.update(len(places))

    @torch.inference_mode()
    def _answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        device = next(self.unified.model.parameters()).device
        keys = self._encode([question.image for question in questions])
        codes = [DualCodes(*(part.to(device).long() for part in self._codes[key])) for key in keys]
        prompts = [question.prompt for question in questions]
        texts = answer(self.unified.model, self.unified.vocabulary, prompts, codes, max_new_tokens)
        return [text.strip() for text in texts]

    def _encode(self, images: Sequence[Path | bytes]) -> list[str]:
        """Tokenizes the pictures that are new; returns the key of each into the codes."""
        keys = [self._key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._codes}
        if new:
            tokenizer = self.unified.tokenizer
            device = next(tokenizer.parameters()).device
            pictures = [_GREY if self.blind else load_image(image) for image in new.values()]
            codes = tokenizer.encode(torch.stack([self.transform(picture) for picture in pictures]).to(device))
            for row, key in enumerate(new):
                self._codes[key] = DualCodes(*(part[row].to(torch.uint16).cpu() for part in codes))
        return keys

    def _key(self, image: Path | bytes) -> str:
        if self.blind:
            return "blind"
        if isinstance(image, bytes):
            return hashlib.sha256(image).hexdigest()
        if image not in self._digests:
            self._digests[image] = hashlib.sha256(image.read_bytes()).hexdigest()
        return self._digests[image]
