"""Values out of a request's JSON, checked one by one; what is wrong is named as OpenAI names it, in `param`."""

from collections.abc import Collection, Mapping
from typing import Any

from serve.errors import ApiError


def number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    # Written so that NaN is refused, and an integer of a thousand digits is never made a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ApiError(400, f"{name} must be a number from {low:g} to {high:g}.", name)
    return float(value)


def integer(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ApiError(400, f"{name} must be a whole number from {low} to {high}.", name)
    return value


def boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise ApiError(400, f"{name} must be true or false.", name)
    return bool(value)


def refuse_unsupported(body: Mapping[str, Any], known: Collection[str], ignored: Collection[str]) -> None:
    """A setting that we do not know would be lost in silence; one that asks for nothing (0, null, []) may stay."""
    for name, value in body.items():
        if name not in known and name not in ignored and value:
            name = name[:80]
            raise ApiError(400, f"{name} is not supported by this server: leave it out.", name, "unsupported_parameter")


def check_model(body: Mapping[str, Any], served: str) -> None:
    model = body.get("model")
    if model not in (None, served):
        raise ApiError(
            404, f"the model {str(model)[:80]!r} does not exist here: use {served!r}.", "model", "model_not_found"
        )
