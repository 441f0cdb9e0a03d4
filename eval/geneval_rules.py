"""GenEval: does a picture hold what its prompt asks for? The decision over an object detector's findings.

    {"filename": …, "metadata": {"tag": …, "prompt": …, "include": […], "exclude": […]},
     "detections": [{"class": "dog", "box": [x1, y1, x2, y2], "score": 0.97, "color": "red"}, …]}

One such line a picture. `metadata` is the official metadata.jsonl of the prompt; `color`, which CLIP tells
officially, is needed where the prompt names one, for each object that counts. The detector itself (Mask2Former) runs
elsewhere.

1. A detection counts above a score of 0.3, in the task "counting" above 0.9; of a class the 16 surest count.
2. Of each class under `include` there must be at least `count`; the `count` surest are the objects of the clause. As
   many of them must have its colour. Each must stand in its relation to each object of the clause that it refers to.
3. Of a class under `exclude` there must be fewer than `count`.

Relation of A to B: centre of A − centre of B, each coordinate shrunk towards 0 by 0.1 · (width or height of A + of
B); over the length of the unshrunk difference, beyond ±0.5 it is left, right, above or below. Both axes can hold.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

THRESHOLD, COUNTING_THRESHOLD, POSITION_THRESHOLD = 0.3, 0.9, 0.1
MAX_OBJECTS = 16
_NOTHING = 1e-3  # pixels: both coordinates shrunk below it are no relation
_HALF = 0.5

Detection = Mapping[str, Any]
Objects = Mapping[str, Sequence[Detection]]


def decide(detections: Sequence[Detection], metadata: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the picture is right, and if not why, a line for each clause that fails."""
    objects = _counted(detections, metadata["tag"])
    matched: list[Sequence[Detection] | None] = []
    reasons = []
    for clause in metadata.get("include", ()):
        found = objects.get(clause["class"], [])[: clause["count"]]
        reason = _missing(clause, found) or _other_color(clause, found) or _elsewhere(clause, found, matched)
        matched.append(None if reason else found)
        reasons.append(reason)
    for clause in metadata.get("exclude", ()):
        number = len(objects.get(clause["class"], []))
        reasons.append(
            f"expected {clause['class']}<{clause['count']}, found {number}" if number >= clause["count"] else ""
        )
    failed = [reason for reason in reasons if reason]
    return not failed, "\n".join(failed)


def relations(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """Where the first box [x1, y1, x2, y2] stands seen from the second; y points down. Raises ValueError."""
    if not all(map(math.isfinite, (*box, *other))):
        raise ValueError(f"the boxes {list(box)} and {list(other)} are not all numbers")
    offset = [(box[i] + box[i + 2] - other[i] - other[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(box[i + 2] - box[i]) + abs(other[i + 2] - other[i]) for i in (0, 1)]
    beyond = [
        math.copysign(max(abs(d) - POSITION_THRESHOLD * size, 0), d) for d, size in zip(offset, sizes, strict=True)
    ]
    if all(abs(d) < _NOTHING for d in beyond):
        return set()
    x, y = (d / math.hypot(*offset) for d in beyond)
    names = {"left of": x < -_HALF, "right of": x > _HALF, "above": y < -_HALF, "below": y > _HALF}
    return {name for name, holds in names.items() if holds}


def _counted(detections: Sequence[Detection], tag: str) -> Objects:
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    objects: dict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda one: -one["score"]):
        if not 0 <= detection["score"] <= 1:  # NaN is neither
            raise ValueError(f"a detected {detection['class']} has the score {detection['score']}, not one from 0 to 1")
        group = objects[detection["class"]]
        if detection["score"] > threshold and len(group) < MAX_OBJECTS:
            group.append(detection)
    return objects


def _missing(clause: Mapping[str, Any], found: Sequence[Detection]) -> str:
    short = len(found) < clause["count"]
    return f"expected {clause['class']}>={clause['count']}, found {len(found)}" if short else ""


def _other_color(clause: Mapping[str, Any], found: Sequence[Detection]) -> str:
    if "color" not in clause:
        return ""
    if any("color" not in one for one in found):
        raise ValueError(f"a detected {clause['class']} has no 'color', which the prompt asks about")
    number = sum(one["color"] == clause["color"] for one in found)
    short = number < clause["count"]
    return f"expected {clause['color']} {clause['class']}>={clause['count']}, found {number}" if short else ""


def _elsewhere(
    clause: Mapping[str, Any], found: Sequence[Detection], matched: Sequence[Sequence[Detection] | None]
) -> str:
    if "position" not in clause:
        return ""
    relation, group = clause["position"]
    if not 0 <= group < len(matched):
        raise ValueError(f"the position of {clause['class']} refers to clause {group}, which does not come before it")
    targets = matched[group]
    if targets is None:
        return f"no target for {clause['class']} to be {relation}"
    for one in found:
        for target in targets:
            if relation not in (seen := relations(one["box"], target["box"])):
                return f"expected {clause['class']} {relation} target, found {' and '.join(sorted(seen))} target"
    return ""
