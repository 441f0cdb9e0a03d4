"""What clients send, what they get, and what the model says and draws alone."""

import base64
import io

import numpy as np
from PIL import Image

from mllm.answer import replies
from mllm.decoding import inference
from mllm.pretrained import Unified
from mllm.prompts import Prompt
from serve.engine import Engine

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}


def picture(color: str = "red") -> Image.Image:
    return Image.new("RGB", (20, 30), color)


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def about(image: Image.Image, question: str = "What is this?") -> dict:
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data_url(image)}}]
    return {"messages": [{"role": "user", "content": parts}]}


def pixels(item: dict) -> np.ndarray:
    """uint8[h, w, 3] of one picture of a response."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))))


def alone(engine: Engine, question: str, image: Image.Image | None, max_new_tokens: int) -> str:
    """The greedy answer in a batch of its own."""
    unified: Unified = engine.unified
    vocabulary = unified.vocabulary
    ids = vocabulary.answering_prompt(question, None if image is None else unified.model.visual.num_patches)
    prompt = Prompt(ids, [] if image is None else [engine.see(image)])
    with inference(unified.model):
        columns = list(replies(unified.model, vocabulary, [prompt], max_new_tokens))
    return vocabulary.decode([token for (token,) in columns if token is not None])
