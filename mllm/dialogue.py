"""Dialogues of texts and images, both in and out (arXiv 2503.14324, section 3.3).

A conversation is spelt as in training (`Vocabulary.dialogue_prompt`). The model writes text; where it writes
`<|vision_start|>` the N patches of an image are drawn, `<|vision_end|>` is put behind them, and text goes on. The image
is read by what follows, in this reply and in later ones. Between texts and images the context is read anew, which costs
one forward pass where an image costs hundreds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from data.vocabulary import Vocabulary
from heads.sampling import DrawSettings, SamplingConfig, check_seed, check_setting, draw
from mllm.decoding import CachedDecoder, inference
from mllm.drawing import Drawing
from mllm.messages import Message, Segment, read_messages
from mllm.model import UnifiedModel
from mllm.prompts import Prompt, embed_prompts
from mllm.text_stream import TextStream
from tokenizer import DualCodes


@dataclass(frozen=True)
class TextSampling:
    """How words are drawn, and how much of a reply there may be."""

    temperature: float = 0.0  # 0 takes the most probable token
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 256
    max_images: int = 4

    def __post_init__(self) -> None:
        for name in DrawSettings._fields:
            check_setting(name, getattr(self, name), " for text")
        if self.max_new_tokens < 1 or self.max_images < 0:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} must be at least 1, max_images={self.max_images} at least 0."
            )


class TextPiece(NamedTuple):
    """The next characters of the reply."""

    text: str


class ImagePiece(NamedTuple):
    """An image so far: int64[p, D] per branch; `done` with all N patches, and then part of the reply."""

    codes: DualCodes
    done: bool


Piece = TextPiece | ImagePiece


def generate(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    messages: Sequence[Message],
    text: TextSampling = TextSampling(),
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
) -> Message:
    """The assistant's reply: its texts and images in order."""
    return message_of(stream(model, vocabulary, messages, text, sampling, seed, num_rows=model.visual.grid[0]))


def message_of(pieces: Iterable[Piece]) -> Message:
    """The reply that was streamed; an image that was not finished is left out."""
    segments: list[Segment] = []
    for piece in pieces:
        if isinstance(piece, ImagePiece):
            segments += [piece.codes] if piece.done else []
        elif segments and isinstance(segments[-1], str):
            segments[-1] += piece.text
        else:
            segments.append(piece.text)
    return Message("assistant", segments)


def stream(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    messages: Sequence[Message],
    text: TextSampling = TextSampling(),
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    num_rows: int = 1,
) -> Iterator[Piece]:
    """The reply as it is made: characters, and an image after every `num_rows` rows of it.

    Its images have the seeds `seed`, `seed` + 1, … The caller may stop at any piece. A conversation that does not fit
    into the context is a ValueError at once, an image that does not when the model opens it.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows} must be at least 1.")
    prompt = read_messages(vocabulary, messages, model)
    return _Reply(model, vocabulary, prompt, text, sampling, seed).pieces(num_rows)


class _Reply:
    """A reply on its way: the context, which grows, and what may still be said."""

    def __init__(
        self,
        model: UnifiedModel,
        vocabulary: Vocabulary,
        prompt: Prompt,
        text: TextSampling,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self.model, self.vocabulary, self.sampling, self.seed = model, vocabulary, sampling, seed
        self.ids, self.images = list(prompt.ids), list(prompt.images)
        self.settings = DrawSettings(text.temperature, text.top_k, text.top_p)
        num_images = 0 if model.config.heads is None else text.max_images
        self.num_tokens, self.num_images = text.max_new_tokens, num_images  # still allowed
        check_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.limit = model.llm.config.max_position_embeddings

    def pieces(self, num_rows: int) -> Iterator[Piece]:
        while True:
            yield from self._text()
            if self.ids[-1] != self.vocabulary.vision_start:
                return
            yield from self._image(num_rows)

    def _text(self) -> Iterator[TextPiece]:
        """Text up to an image, which is then open, or up to the end of the reply."""
        num_new = min(self.num_tokens, self.limit - len(self.ids))
        if num_new < 1:
            return
        with inference(self.model):
            embeddings, mask = embed_prompts(self.model, self.vocabulary, [Prompt(self.ids, self.images)])
            decoder = CachedDecoder(self.model, mask, num_new)
        words = TextStream(self.vocabulary)
        for _ in range(num_new):
            with inference(self.model):
                token = self._token(decoder.advance(embeddings))
                embeddings = self.model.llm.get_input_embeddings()(token.unsqueeze(0))
            if int(token) in self.vocabulary.ends:
                break
            self.ids.append(int(token))
            if int(token) == self.vocabulary.vision_start:
                break
            self.num_tokens -= 1
            if piece := words.push(int(token)):
                yield TextPiece(piece)
        if piece := words.rest():
            yield TextPiece(piece)

    def _token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float[1, E] -> int64[1]. What has no place in a reply is never said."""
        vocabulary = self.vocabulary
        logits = self.model.llm.get_output_embeddings()(hidden_states)[:, : len(vocabulary)].float()
        opening = logits[:, vocabulary.vision_start].clone()
        logits[:, vocabulary.silent] = float("-inf")
        if self.num_images:
            logits[:, vocabulary.vision_start] = opening
        uniform = torch.rand(1, generator=self.generator, dtype=torch.float64)
        return draw(logits, uniform.to(logits.device), self.settings)

    def _image(self, num_rows: int) -> Iterator[ImagePiece]:
        """The image that the context ends with the opening of, and its end."""
        num_patches = self.model.visual.num_patches
        if len(self.ids) + num_patches + 1 > self.limit:
            raise ValueError(
                f"the model opens an image of {num_patches} positions, but of the language model's context of "
                f"{self.limit} only {self.limit - len(self.ids)} are left: leave out earlier messages or images."
            )
        prompt = Prompt(list(self.ids), list(self.images))
        drawing = Drawing(self.model, self.vocabulary, [prompt], self.sampling, [self.seed])
        for codes in drawing.rows(num_rows):
            image = DualCodes(*(part[0] for part in codes))
            if drawing.done:
                self.ids += self.vocabulary.image(num_patches)[1:]
                self.images.append(image)
                self.num_images, self.seed = self.num_images - 1, (self.seed + 1) % 2**63
            yield ImagePiece(image, drawing.done)
