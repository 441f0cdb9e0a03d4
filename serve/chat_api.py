"""`POST /v1/chat/completions`: OpenAI's JSON to a conversation, and an answer to OpenAI's JSON."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from heads.sampling import DrawSettings
from mllm.messages import Message
from serve.config import Limits
from serve.conversation import user_message
from serve.engine import Answered
from serve.errors import ApiError
from serve.fields import boolean, check_model, integer, number, refuse_unsupported
from serve.image_input import read_picture
from tokenizer import DualCodes

KNOWN = ("messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream", "stream_options")
IGNORED = ("model", "user", "store", "metadata", "safety_identifier", "n")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class ChatCall:
    messages: list[Message]
    settings: DrawSettings
    seed: int
    max_new_tokens: int
    stream: bool
    include_usage: bool


def parse_chat(
    body: Mapping[str, Any],
    served: str,
    limits: Limits,
    see: Callable[[Image.Image], DualCodes],
    image_folder: Path | None,
) -> ChatCall:
    """Pictures are decoded here, one after the other, and only their codes are kept."""
    check_model(body, served)
    refuse_unsupported(body, KNOWN, IGNORED)
    integer(body, "n", 1, 1, 1)
    longest = integer(body, "max_tokens", limits.new_tokens, 1, limits.new_tokens)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object.", "stream_options")
    return ChatCall(
        messages=_messages(body.get("messages"), limits, see, image_folder),
        # Greedy unless asked: a small model says its best.
        settings=DrawSettings(number(body, "temperature", 0.0, 0, 2), 0, number(body, "top_p", 1.0, 1e-6, 1)),
        seed=integer(body, "seed", secrets.randbelow(2**31), 0, 2**63 - 1),
        max_new_tokens=integer(body, "max_completion_tokens", longest, 1, limits.new_tokens),
        stream=boolean(body, "stream"),
        include_usage=boolean(options, "include_usage"),
    )


def _messages(
    messages: Any, limits: Limits, see: Callable[[Image.Image], DualCodes], image_folder: Path | None
) -> list[Message]:
    if not isinstance(messages, list) or not 1 <= len(messages) <= limits.messages:
        raise ApiError(400, f"messages must be a list of 1 to {limits.messages} messages.", "messages")
    sources = [_parts(message, f"messages[{i}]") for i, message in enumerate(messages)]
    parts = [part for _, content in sources for part in content]
    if sum(kind == "image" for kind, _ in parts) > limits.pictures:
        raise ApiError(400, f"a conversation may show at most {limits.pictures} pictures.", "messages")
    if sum(len(value) for kind, value in parts if kind == "text") > limits.prompt_characters:
        raise ApiError(400, f"a conversation may hold at most {limits.prompt_characters} characters.", "messages")
    if sources[-1][0] != "user":
        raise ApiError(400, "the last message must be the user's.", "messages")

    def segment(kind: str, value: str) -> str | DualCodes:
        return value if kind == "text" else see(read_picture(value, limits.pixels, image_folder))

    spoken = [(role, [segment(*part) for part in content]) for role, content in sources]
    return [user_message(segments) if role == "user" else Message(role, segments) for role, segments in spoken]


def _parts(message: Any, where: str) -> tuple[str, list[tuple[str, str]]]:
    """The role, and ("text", text) or ("image", URL) in order."""
    if not isinstance(message, dict) or not isinstance(role := message.get("role"), str) or role not in ROLES:
        raise ApiError(400, f"{where} must have a role: {', '.join(ROLES)}.", where)
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise ApiError(400, f"{where}.content must be a text, or a list of parts.", f"{where}.content")
    parts = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    if not any(kind == "image" or value.strip() for kind, value in parts):
        raise ApiError(400, f"{where} is empty: say something.", f"{where}.content")
    return ROLES[role], parts


def _part(part: Any, where: str) -> tuple[str, str]:
    if isinstance(part, dict):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return "text", part["text"]
        if part.get("type") == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str):
                return "image", url
    raise ApiError(
        400, f'{where} must be {{"type": "text", "text"}} or {{"type": "image_url", "image_url": {{"url"}}}}.', where
    )


def usage(prompt_tokens: int, answered: Answered) -> dict[str, int]:
    total = prompt_tokens + answered.num_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answered.num_tokens, "total_tokens": total}


def finish_reason(answered: Answered) -> str:
    return "stop" if answered.complete else "length"


def completion(head: dict[str, Any], text: str, prompt_tokens: int, answered: Answered) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answered)}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage(prompt_tokens, answered)}


def chunk(head: dict[str, Any], delta: dict[str, str], reason: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return event({**head, "object": "chat.completion.chunk", "choices": [choice]})


def event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
