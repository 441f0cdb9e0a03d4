"""A packed row as a person reads it, taken from the batch that the model gets and from nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from data.batch import Batch
from data.vocabulary import Vocabulary

IGNORE = -100
MAX_TOKENS_OF_A_CHARACTER = 4  # bytes of UTF-8


@dataclass(frozen=True)
class Piece:
    """A token of text, several where one character needs them, or an image."""

    text: str  # as spelt in the vocabulary; empty for an image
    place: int  # in the row
    position: int  # position id of the first token
    num_tokens: int
    is_learned: bool
    image: int | None = None  # which image of the batch


@dataclass(frozen=True)
class DocumentView:
    key: str | None  # None: padding
    start: int  # place in the row
    length: int
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class RowView:
    documents: list[DocumentView]
    length: int

    @property
    def num_filled(self) -> int:
        return sum(document.length for document in self.documents if document.key is not None)


def view_rows(batch: Batch, vocabulary: Vocabulary, first_image: int = 0) -> list[RowView]:
    """The rows of a batch, whose images are counted from `first_image` on. Position ids restart at each document."""
    keys, images = iter(batch.keys), iter(range(first_image, first_image + len(batch.pixel)))
    num_patches = batch.pixel.shape[1]
    rows = []
    for row in range(len(batch.input_ids)):
        length = batch.input_ids.shape[1]
        starts = (batch.position_ids[row] == 0).nonzero().flatten().tolist()
        documents = []
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            if (batch.input_ids[row, start:end] == vocabulary.endoftext).all():
                documents.append(DocumentView(None, start, end - start))
                continue
            pieces = list(_pieces(batch, row, start, end, vocabulary, images, num_patches))
            documents.append(DocumentView(next(keys), start, end - start, pieces))
        rows.append(RowView(documents, length))
    return rows


def _pieces(
    batch: Batch, row: int, start: int, end: int, vocabulary: Vocabulary, images: Iterator[int], num_patches: int
) -> Iterator[Piece]:
    ids, learned = batch.input_ids[row], (batch.labels[row] != IGNORE) | batch.target_mask[row]
    place = start
    while place < end:
        is_image = bool(batch.image_mask[row, place])
        text, num_tokens = ("", num_patches) if is_image else _character(ids, learned, place, end, vocabulary)
        position, image = int(batch.position_ids[row, place]), next(images) if is_image else None
        yield Piece(text, place, position, num_tokens, bool(learned[place]), image)
        place += num_tokens


def _character(ids: Tensor, learned: Tensor, start: int, end: int, vocabulary: Vocabulary) -> tuple[str, int]:
    """The token at `start`, with those after it that complete its last character."""
    text = vocabulary.decode([int(ids[start])], skip_special=False)
    for num in range(2, MAX_TOKENS_OF_A_CHARACTER + 1):
        if not text.endswith("\ufffd") or start + num > end or learned[start + num - 1] != learned[start]:
            break
        longer = vocabulary.decode(ids[start : start + num].tolist(), skip_special=False)
        if not longer.endswith("\ufffd"):
            return longer, num
    return text, 1
