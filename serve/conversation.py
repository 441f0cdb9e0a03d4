"""A user's words and pictures in the order that training has them in."""

from collections.abc import Sequence

from mllm.messages import Message, Segment


def user_message(parts: Sequence[Segment]) -> Message:
    """A single picture stands before the text, wherever it came, as in data/conversations.py."""
    pictures = [part for part in parts if not isinstance(part, str)]
    text = "".join(part for part in parts if isinstance(part, str)).strip()
    if len(pictures) != 1:
        return Message("user", parts)
    return Message("user", [*pictures, f"\n{text}"] if text else pictures)
