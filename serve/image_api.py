"""`POST /v1/images/generations`: OpenAI's JSON to a drawing request, and pictures to OpenAI's JSON.

Beside OpenAI's fields: `seed` of the first picture (the next ones count up), `cfg`, `temperature`, `top_k`, `top_p`.
"""

import base64
import io
import secrets
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from heads.sampling import SamplingConfig
from serve.config import Limits
from serve.engine import DrawRequest
from serve.errors import ApiError
from serve.fields import check_model, integer, number, refuse_unsupported

KNOWN = ("prompt", "n", "seed", "cfg", "temperature", "top_k", "top_p", "size")
ONLY = {  # what every picture is anyway, the first by default
    "response_format": ("b64_json",),
    "output_format": ("png",),
    "quality": ("auto", "standard"),
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
}
IGNORED = ("model", "user")


def parse_drawing(body: Mapping[str, Any], served: str, limits: Limits, image_size: int) -> DrawRequest:
    check_model(body, served)
    refuse_unsupported(body, (*KNOWN, *ONLY), IGNORED)
    caption = body.get("prompt")
    if not isinstance(caption, str) or not caption.strip():
        raise ApiError(400, "prompt must say in a few words what to draw.", "prompt")
    if len(caption) > limits.prompt_characters:
        raise ApiError(400, f"prompt may have at most {limits.prompt_characters} characters.", "prompt")
    for name, possible in ONLY.items():
        only(body, name, *possible)
    only(body, "size", f"{image_size}x{image_size}", "auto")
    sampling = SamplingConfig(
        cfg=number(body, "cfg", 3.0, 0, 100),
        temperature=number(body, "temperature", 0.8, 0, 100),
        top_k=integer(body, "top_k", 200, 0, 2**31),
        top_p=number(body, "top_p", 1.0, 1e-6, 1),
    )
    num = integer(body, "n", 1, 1, limits.drawings)
    seed = integer(body, "seed", secrets.randbelow(2**31), 0, 2**62)
    return DrawRequest(caption, sampling, list(range(seed, seed + num)))


def only(body: Mapping[str, Any], name: str, *possible: str) -> None:
    if body.get(name, possible[0]) not in (*possible, None):
        raise ApiError(400, f"{name} must be {' or '.join(possible)} here.", name)


def drawings(request: DrawRequest, images: list[Image.Image]) -> dict[str, Any]:
    data = [{"b64_json": encoded(image), "seed": seed} for image, seed in zip(images, request.seeds, strict=True)]
    return {
        "created": int(time.time()),
        "data": data,
        "output_format": "png",
        "size": f"{images[0].width}x{images[0].height}",
    }


def encoded(image: Image.Image) -> str:
    """PNG in base64."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
