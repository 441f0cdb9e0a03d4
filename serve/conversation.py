"""A user's words and pictures in the order that training has them in."""

from collections.abc import Sequence

from data.vocabulary import picture_first
from mllm.messages import Message, Segment


def user_message(parts: Sequence[Segment]) -> Message:
    """A single picture stands before the text, wherever it came, as in data/conversations.py."""
    return Message("user", picture_first(parts))
