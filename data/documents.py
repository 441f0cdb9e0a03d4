"""Training documents: the forms of Sec. 3.3, with labels and `target_mask` exact to the token.

What the assistant writes is learned: its text, the delimiters around its images, its closing `<|im_end|>`, and the
codes of its images. What the user says or shows is only read. The tokens come from data/vocabulary.py, so that a
training document begins with exactly the prompt that generation uses. An image is a reference: its codes are read when
the document is collated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from data.vocabulary import CAPTION_REQUEST, ImageSlot, Vocabulary, drawing_request


class Codes(Protocol):
    """What a document needs of a code store, or of picture files that become codes when they are asked for."""

    @property
    def num_patches(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def check(self, index: Any) -> None: ...  # ValueError, naming the image, if it is of no use

    def codes_of(self, indices: Sequence[Any]) -> Sequence[tuple[np.ndarray, np.ndarray] | None]:
        """Pixel and semantic codes, [N, D] each; None for an image that turned out to be of no use after all."""
        ...


@dataclass(frozen=True)
class ImageRef:
    """An image of a code store, or a picture file."""

    store: Codes
    index: Any  # the row of a code store, the name of a file


class Turn(NamedTuple):
    """What one side says: texts and images in order."""

    role: str  # system | user | assistant
    segments: Sequence[str | ImageRef]


@dataclass(frozen=True)
class Document:
    """A sequence that is never cut and never sees its neighbours. See `Batch` for the meaning of the tensors."""

    input_ids: Tensor  # int64[L]
    labels: Tensor  # int64[L], −100 where the text is not learned
    image_mask: Tensor  # bool[L]
    target_mask: Tensor  # bool[L]
    images: tuple[ImageRef, ...]
    key: str

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        return int((self.labels != -100).sum() + self.target_mask.sum())


def _document(
    vocabulary: Vocabulary, ids: list[int], learned: list[bool], images: Sequence[ImageRef], key: str
) -> Document:
    input_ids, supervised = torch.tensor(ids), torch.tensor(learned)
    # Text never encodes to the placeholder, so that every placeholder is a visual position.
    image_mask = input_ids == vocabulary.image_pad
    labels = input_ids.where(supervised & ~image_mask, -100)
    return Document(input_ids, labels, image_mask, supervised & image_mask, tuple(images), key)


def conversation_document(vocabulary: Vocabulary, turns: Sequence[Turn], key: str) -> Document:
    """Any number of turns; images of assistant turns are generated, the others are seen."""
    ids: list[int] = []
    learned: list[bool] = []
    for turn in turns:
        slots = [s if isinstance(s, str) else ImageSlot(s.store.num_patches) for s in turn.segments]
        if turn.role == "assistant":
            start, answer = vocabulary.assistant_start(), [*vocabulary.content(slots), vocabulary.im_end]
            ids += start + answer
            learned += [False] * len(start) + [True] * len(answer)
            if turn is not turns[-1]:  # the newline after the last turn would be read by nobody
                ids += vocabulary.encode("\n")
        else:
            ids += vocabulary.user_turn(slots, turn.role)
        learned += [False] * (len(ids) - len(learned))
    images = [segment for turn in turns for segment in turn.segments if not isinstance(segment, str)]
    return _document(vocabulary, ids, learned, images, key)


def caption_document(vocabulary: Vocabulary, image: ImageRef, caption: str, key: str) -> Document:
    """Image to text."""
    turns = [Turn("user", [image, f"\n{CAPTION_REQUEST}"]), Turn("assistant", [caption.strip()])]
    return conversation_document(vocabulary, turns, key)


def drawing_document(vocabulary: Vocabulary, image: ImageRef, caption: str | None, key: str) -> Document:
    """Text to image; without a caption it trains the unconditional model of classifier-free guidance."""
    turns = [Turn("user", [drawing_request(caption)]), Turn("assistant", [image])]
    return conversation_document(vocabulary, turns, key)


def interleaved_document(
    vocabulary: Vocabulary, segments: Sequence[str | ImageRef], key: str, learn_images: bool = True
) -> Document:
    """Texts and images in order, up to `<|endoftext|>`, without turns: all text is learned, and the images with it."""
    ids: list[int] = []
    learned: list[bool] = []
    for segment in _joined(segments):
        if isinstance(segment, str):
            new = vocabulary.encode(segment)
            learned += [True] * len(new)
        else:
            new = vocabulary.image(segment.store.num_patches)
            # One that is only read opens where the page has it, and closes at a place that is known beforehand.
            learned += [True] + [learn_images] * (len(new) - 1)
        ids += new
    ids, learned = [*ids, vocabulary.endoftext], [*learned, True]
    images = [segment for segment in segments if not isinstance(segment, str)]
    return _document(vocabulary, ids, [False, *learned[1:]], images, key)


def _joined(segments: Sequence[str | ImageRef]) -> list[str | ImageRef]:
    """Neighbouring texts as one, so that splitting a text changes nothing."""
    joined: list[str | ImageRef] = []
    for segment in segments:
        if isinstance(segment, str) and joined and isinstance(joined[-1], str):
            joined[-1] += segment
        else:
            joined.append(segment)
    return joined


def text_document(vocabulary: Vocabulary, text: str, key: str) -> Document:
    """Plain text up to `<|endoftext|>`; nothing stands before its first token that could predict it."""
    ids = [*vocabulary.encode(text), vocabulary.endoftext]
    return _document(vocabulary, ids, [False] + [True] * (len(ids) - 1), (), key)
