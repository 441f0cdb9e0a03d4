"""What earlier calls with the same model and settings left in OUT: the figures of tasks that this call does not ask."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eval.files import read_json


class Earlier(NamedTuple):
    """By the task."""

    tasks: dict[str, Any]  # figures, as in scores.json
    splits: dict[str, str]
    described: dict[str, Any]  # as in manifest.json


def read_earlier(out: Path, made_from: Mapping[str, Any]) -> Earlier:
    """Empty where OUT has no whole scores.json and manifest.json of these models and settings."""
    try:
        scores, manifest = read_json(out / "scores.json"), read_json(out / "manifest.json")
    except (FileNotFoundError, ValueError):  # a kill may have cut one
        return Earlier({}, {}, {})
    same = json.loads(json.dumps(dict(made_from)))
    if any(manifest.get(name) != value for name, value in same.items()):
        return Earlier({}, {}, {})
    return Earlier(scores["tasks"], scores["splits"], manifest.get("tasks", {}))
