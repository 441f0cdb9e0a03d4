"""The text vocabulary and the ChatML layout around text and images (Sec. 3.3).

The one place that knows how a conversation is spelt in tokens, used by the training documents and by generation alike.
An image is `<|vision_start|>`, N × `<|image_pad|>`, `<|vision_end|>`: delimiters that Qwen2.5 already has, so that its
embedding is not resized. A turn is `<|im_start|>{role}\\n{content}<|im_end|>\\n`. There is no default system prompt.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

# In Qwen2.5's order; the second group is not "special" there: decoding keeps those tokens as text.
CONTROL_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]
PLAIN_TOKENS = [
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
]
REQUIRED_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")

CAPTION_REQUEST = "Describe the picture."

T = TypeVar("T")


def drawing_request(caption: str | None) -> str:
    """What the user says to have a picture drawn; without a caption it is the unconditional request."""
    return "Draw:" if caption is None else f"Draw: {caption.strip()}"


def picture_first(segments: Sequence[str | T]) -> list[str | T]:
    """A user's message with one picture: the picture before the text, wherever it stood, as LLaVA-1.5 has it.

    That is the layout of `Vocabulary.answering_prompt`. Other messages stay as they are.
    """
    pictures = [segment for segment in segments if not isinstance(segment, str)]
    if len(pictures) != 1:
        return list(segments)
    text = "".join(segment for segment in segments if isinstance(segment, str)).strip()
    return [*pictures, f"\n{text}"] if text else [*pictures]


class ImageSlot(NamedTuple):
    """The place of an image of N patches among the segments of a turn."""

    num_patches: int


Segment = str | ImageSlot


class Vocabulary:
    """A BPE tokenizer with Qwen2.5's control tokens. `new_ids` are those that it lacked when it was loaded."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, new_ids: Sequence[int] = ()):
        self.tokenizer, self.new_ids = tokenizer, list(new_ids)
        backend = tokenizer.backend_tokenizer
        if missing := _missing_tokens(tokenizer):
            name = tokenizer.name_or_path or type(tokenizer).__name__
            raise ValueError(
                f"the text tokenizer {name!r} lacks {', '.join(missing)}: "
                "use one of the Qwen2, Qwen2.5 or Qwen3 families, or train one with Vocabulary.train"
            )
        self.endoftext, self.im_start, self.im_end, self.vision_start, self.image_pad, self.vision_end = (
            backend.token_to_id(token) for token in REQUIRED_TOKENS
        )
        special = [token for token, added in tokenizer.added_tokens_decoder.items() if added.special]
        self._special = sorted({*special, self.im_start, *self.image(1)})
        # The same BPE without its added tokens: a control token that a user types is spelt out as text.
        self._text = Tokenizer(backend.model)
        if backend.normalizer is not None:
            self._text.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            self._text.pre_tokenizer = backend.pre_tokenizer

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Vocabulary":
        """Load from a local folder or a hub id. Control tokens that it lacks are added behind its last."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path), use_fast=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise FileNotFoundError(
                f"no text tokenizer could be loaded from {str(path)!r}: give a folder with tokenizer.json and "
                "tokenizer_config.json, or a hub id such as Qwen/Qwen2.5-3B"
            ) from error
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"the text tokenizer {str(path)!r} has no tokenizer.json: use one that has")
        missing = _missing_tokens(tokenizer)
        added = [AddedToken(token, special=True, normalized=False) for token in missing]
        tokenizer.add_tokens(added, special_tokens=True)
        return cls(tokenizer, tokenizer.convert_tokens_to_ids(missing))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Vocabulary":
        """Train in Qwen2.5's token class and layout; `vocab_size` counts the control tokens, which come last."""
        num_added = len(CONTROL_TOKENS) + len(PLAIN_TOKENS)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        smallest = num_added + len(alphabet)
        if vocab_size < smallest:
            raise ValueError(f"vocab_size={vocab_size} is too small: bytes and control tokens alone are {smallest}")
        layout = Qwen2Tokenizer().backend_tokenizer  # empty: lends its normaliser and its pre-tokenizer
        bpe = Tokenizer(models.BPE())
        bpe.normalizer, bpe.pre_tokenizer = layout.normalizer, layout.pre_tokenizer
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - num_added, initial_alphabet=alphabet, special_tokens=[], show_progress=False
        )
        bpe.train_from_iterator(texts, trainer)
        model = json.loads(bpe.to_str())["model"]
        merges = [tuple(merge) for merge in model["merges"]]
        tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, extra_special_tokens=CONTROL_TOKENS[1:])
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_TOKENS])
        return cls(tokenizer)

    def save_pretrained(self, folder: str | Path) -> None:
        self.tokenizer.save_pretrained(str(folder))

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Text to ids. Control tokens in it are text, never control; halves of surrogate pairs become `?`."""
        return self._text.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)

    @property
    def ends(self) -> list[int]:
        """What the model ends its turn with."""
        return [self.im_end, self.endoftext]

    @property
    def silent(self) -> list[int]:
        """What it never says: all other special tokens, which no text holds. Where it may draw into its reply, it says
        `vision_start` none the less."""
        return [token for token in self._special if token not in self.ends]

    def image(self, num_patches: int) -> list[int]:
        return [self.vision_start, *[self.image_pad] * num_patches, self.vision_end]

    def content(self, segments: Iterable[Segment]) -> list[int]:
        """Text and images in order. Neighbouring texts are joined first, so that splitting a text changes nothing."""
        ids: list[int] = []
        text = ""
        for segment in segments:
            if isinstance(segment, str):
                text += segment
                continue
            ids += self.encode(text) + self.image(segment.num_patches)
            text = ""
        return ids + self.encode(text)

    def user_turn(self, segments: Iterable[Segment], role: str = "user") -> list[int]:
        """A whole turn that the model reads: `<|im_start|>user\\n … <|im_end|>\\n`."""
        return [self.im_start, *self.content([f"{role}\n", *segments]), self.im_end, *self.encode("\n")]

    def assistant_start(self) -> list[int]:
        """The opening of a turn that the model writes, which it ends with `<|im_end|>`."""
        return [self.im_start, *self.encode("assistant\n")]

    def drawing_prompt(self, caption: str | None) -> list[int]:
        """Up to and including `<|vision_start|>`. None is the unconditional prompt of classifier-free guidance."""
        return [*self.user_turn([drawing_request(caption)]), *self.assistant_start(), self.vision_start]

    def answering_prompt(self, question: str, num_patches: int | None) -> list[int]:
        """A question about an image of N patches, or about none."""
        question = question.strip()
        segments: list[Segment] = [question] if num_patches is None else [ImageSlot(num_patches), f"\n{question}"]
        return [*self.user_turn(segments), *self.assistant_start()]

    def dialogue_prompt(self, turns: Iterable[tuple[str, Sequence[Segment]]]) -> list[int]:
        """Turns of a role and its segments, spelt as in training, and the opening of the answer to the last."""
        ids: list[int] = []
        for role, segments in turns:
            if role == "assistant":
                ids += [*self.assistant_start(), *self.content(segments), self.im_end, *self.encode("\n")]
            else:
                ids += self.user_turn(segments, role)
        return ids + self.assistant_start()


def _missing_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [token for token in REQUIRED_TOKENS if tokenizer.backend_tokenizer.token_to_id(token) is None]
