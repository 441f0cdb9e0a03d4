"""The messages of a conversation, and how the model reads them."""

from collections.abc import Sequence
from typing import NamedTuple

from data.vocabulary import ImageSlot, Vocabulary
from mllm.model import UnifiedModel
from mllm.prompts import Prompt
from tokenizer import DualCodes

ROLES = ("system", "user", "assistant")
Segment = str | DualCodes  # an image: int64[N, D] per branch


class ContextLengthError(ValueError):
    """What was asked for does not fit into the language model's context."""


class Message(NamedTuple):
    role: str  # system | user | assistant
    segments: Sequence[Segment]  # texts and images in order


def read_messages(vocabulary: Vocabulary, messages: Sequence[Message], model: UnifiedModel) -> Prompt:
    """The ids of a conversation up to the opening of the assistant's turn, and its images."""
    if not messages or messages[-1].role == "assistant":
        raise ValueError("there is nothing to reply to: the last message must be the user's.")
    shape, turns, images = model.visual.shape, [], []
    for number, (role, segments) in enumerate(messages, start=1):
        if role not in ROLES:
            raise ValueError(f"message {number} is of role {role!r}: choose {', '.join(ROLES)}.")
        if role != "assistant" and not any(not isinstance(s, str) or s.strip() for s in segments):
            raise ValueError(f"message {number} is empty: say or show something.")
        pictures = [segment for segment in segments if not isinstance(segment, str)]
        for picture in pictures:
            if any(part.shape != shape for part in picture):
                raise ValueError(
                    f"an image of message {number} has codes of shape {tuple(picture.pixel.shape)}, not {shape}: "
                    "encode it with the tokenizer of this model."
                )
        images += pictures
        turns.append((role, [s if isinstance(s, str) else ImageSlot(shape[0]) for s in segments]))
    ids, limit = vocabulary.dialogue_prompt(turns), model.llm.config.max_position_embeddings
    if len(ids) >= limit:
        raise ContextLengthError(
            f"the conversation takes {len(ids)} positions, {len(images)} images of {shape[0]} among them, but the "
            f"language model's context is {limit}: leave out earlier messages or images."
        )
    return Prompt(ids, images)
