"""GenEval: objects, counts, colours and positions in drawn pictures; 553 prompts, 4 pictures each.

    dualtoken score geneval --results FILE.jsonl        the official results, a line a picture
    dualtoken score geneval --detections FILE.jsonl     a detector's findings, by the rules of eval/geneval_rules.py

`overall` is the unweighted mean over the tags' shares of right pictures, not the share of all. The detector runs
elsewhere.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.files import read_json_lines
from eval.geneval_rules import decide

HELP = "GenEval: overall and per tag, 0-1"
PROTOCOL = "official summary: unweighted mean over the tags; thresholds .3, counting .9, position .1"

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
NUM_PROMPTS, IMAGES_PER_PROMPT = 553, 4


def read_results(path: str) -> list[dict[str, Any]]:
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        if row.get("tag") not in TAGS:
            raise ValueError(f"{path} row {number} has the tag {row.get('tag')!r}, which is none of {', '.join(TAGS)}")
        if not isinstance(row.get("correct"), bool):
            raise ValueError(f"{path} row {number} has no true or false in 'correct': it is not judged")
    _require_once(rows, path)
    return rows


def judge(path: str) -> tuple[list[dict[str, Any]], list[str]]:
    """A detections file → rows as the official evaluation writes them, and the classes that are never detected in it.

    Of these no picture is right: the detector may call them otherwise than the prompts do.
    """
    rows = read_json_lines(path)
    _require_once(rows, path)
    results = []
    asked, detected = set[str](), set[str]()
    for number, row in enumerate(rows, start=1):
        try:
            metadata = _metadata(row)
            if not metadata.get("include"):
                raise ValueError("its metadata has no 'include', and any picture would be right")
            correct, reason = decide(row["detections"], metadata)
            asked.update(clause["class"] for clause in metadata["include"])
            detected.update(one["class"] for one in row["detections"])
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path} row {number} is not of the format of eval/geneval_rules.py: {what}") from None
        if metadata["tag"] not in TAGS:
            raise ValueError(f"{path} row {number} has the tag {metadata['tag']!r}, none of {', '.join(TAGS)}")
        same = {"filename": row.get("filename"), "tag": metadata["tag"], "prompt": metadata.get("prompt")}
        results.append({**same, "correct": correct, "reason": reason, "metadata": json.dumps(metadata)})
    return results, sorted(asked - detected)


def score(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """0–1: `overall`, `per_tag`; also `correct_images` and `correct_prompts` (any picture right) over all."""
    tags: dict[str, list[bool]] = defaultdict(list)
    prompts: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        tags[row["tag"]].append(row["correct"])
        prompts[_prompt(row)].append(row["correct"])
    per_tag = {tag: sum(tags[tag]) / len(tags[tag]) for tag in TAGS if tag in tags}
    warnings: dict[str, Any] = {
        "missing_tags": [tag for tag in TAGS if tag not in tags],
        "prompts_instead_of_the_official_553": len(prompts) if len(prompts) != NUM_PROMPTS else 0,
        "prompts_without_four_images": sum(len(group) != IMAGES_PER_PROMPT for group in prompts.values()),
    }
    return {
        "overall": sum(per_tag.values()) / len(per_tag),
        "per_tag": per_tag,
        "correct_images": sum(map(sum, tags.values())) / len(rows),
        "correct_prompts": sum(map(any, prompts.values())) / len(prompts),
        "num_images": len(rows),
        "num_prompts": len(prompts),
        "warnings": {name: value for name, value in warnings.items() if value},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--results", metavar="FILE.jsonl", help="official results: tag, correct, metadata, … a line")
    source.add_argument("--detections", metavar="FILE.jsonl", help="filename, metadata, detections a line")
    parser.add_argument("--save-results", metavar="OUT.jsonl", help="write the decisions as official results")


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows, unseen = (read_results(args.results), []) if args.results else judge(args.detections)
    if args.save_results:
        Path(args.save_results).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = score(rows)
    warnings = {"classes_asked_for_and_never_detected": unseen} if unseen else {}
    return {**result, "warnings": {**result["warnings"], **warnings}}


def table(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("overall", f"{result['overall']:.4f}"), *((tag, f"{v:.4f}") for tag, v in result["per_tag"].items())]


def _require_once(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    names = Counter(row["filename"] for row in rows if isinstance(row.get("filename"), str))
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{path} holds the picture {repeated[0]!r} twice: remove the duplicate")


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """An object, or one as text, as the official results have it."""
    value = row["metadata"]
    return json.loads(value) if isinstance(value, str) else value


def _prompt(row: Mapping[str, Any]) -> str:
    """Two prompts with the same words can ask for different things: their metadata tell them apart."""
    value = row.get("metadata", row.get("prompt"))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
