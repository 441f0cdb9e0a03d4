"""`dualtoken draw-benchmark`: prompts of text-to-image benchmarks → pictures, laid out for the official evaluators.

    OUT/NAME/                    pictures (eval/prompt_sets.py)
    OUT/NAME/pictures.jsonl      {"file", "prompt", "seed"} of each
    OUT/NAME/made_from.json      what decides them: model, settings, hashes of the prompt files
    OUT/result.json              what was drawn, and the commands that score it: no number is made here
    OUT/manifest.json            versions, hashes, settings

A picture's seed comes from the run's, the id of its prompt and its number. Pictures are drawn in blocks that only their
list decides, for products of another shape round otherwise: neither the number of processes nor a kill changes a byte.
Pictures of another model or other settings are moved to OUT/NAME-FINGERPRINT, and come back with their settings.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from eval.files import read_json, write_json
from eval.manifest import fingerprint, hash_files, versions
from eval.picture_folders import save_whole
from eval.prompt_sets import Prompt, PromptSet
from eval.ranks import Alone, Ranks

Draw = Callable[[list[str], list[int]], list[Image.Image]]
"""(texts, seeds) → a picture of each: all that is needed of a model."""


class Picture(NamedTuple):
    path: Path
    text: str
    seed: int


def draw_benchmarks(
    prompt_sets: Sequence[PromptSet],
    draw: Draw,
    out: Path,
    made_from: Mapping[str, Any],
    seed: int = 0,
    batch_size: int = 16,
    limit: int | None = None,
    ranks: Ranks = Alone(),
) -> dict[str, Any]:
    """Draws what is missing and returns what result.json holds; {} in all processes but the first.

    `made_from` names the model and what else decides a picture. `limit` is for a smoke run: so many prompts of each.
    """
    result: dict[str, Any] = {"partial": False, "limit": limit, "tasks": {}}
    manifest: dict[str, Any] = {"versions": versions(), "processes": ranks.size, "batch_size": batch_size, "tasks": {}}
    for prompt_set, everything in [(each, each.prompts()) for each in prompt_sets]:  # a mistake is known at once
        folder, started = out / prompt_set.name, time.monotonic()
        prompts = spread(everything, limit)
        settings = {**made_from, "seed": seed, "prompt_files": hash_files(prompt_set.files(), prompt_set.path.parent)}
        if ranks.rank == 0:
            claim(folder, settings)
        pictures = list_pictures(prompt_set, prompts, folder, seed)
        draw_missing(pictures, draw, batch_size, prompt_set.name, ranks)
        for prompt in prompts[ranks.rank :: ranks.size]:
            prompt_set.complete(prompt, folder)
        ranks.barrier()
        if ranks.rank > 0:
            continue
        rows = [{"file": p.path.relative_to(folder).as_posix(), "prompt": p.text, "seed": p.seed} for p in pictures]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / "pictures.jsonl").write_text("".join(lines), encoding="utf-8")
        partial = len(prompts) < len(everything)
        result["partial"] |= partial
        result["tasks"][prompt_set.name] = {
            "folder": str(folder),
            "num_pictures": len(pictures),
            "num_prompts": len(prompts),
            "partial": partial,
            "seconds": time.monotonic() - started,
            "not_graded": f"the judge is {prompt_set.judge}",
            "next_commands": prompt_set.next_commands(folder.absolute()),  # they run in other folders
            "warnings": _warnings(prompt_set, everything),
        }
        manifest["tasks"][prompt_set.name] = {**settings, "path": str(prompt_set.path), "of": len(everything)}
    if ranks.rank > 0:
        return {}
    write_json(out / "result.json", result)
    write_json(out / "manifest.json", {**manifest, "limit": limit, "partial": result["partial"]})
    return result


def spread(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """`limit` of the prompts, evenly spread, for official files are sorted by task; all of them without a limit."""
    num = len(prompts) if limit is None else min(limit, len(prompts))
    return [prompts[i * len(prompts) // num] for i in range(num)]


def list_pictures(prompt_set: PromptSet, prompts: Sequence[Prompt], folder: Path, seed: int) -> list[Picture]:
    return [
        Picture(folder / prompt_set.picture(prompt, number), prompt.text, seed_of(seed, prompt.id, number))
        for prompt in prompts
        for number in range(prompt_set.num_pictures)
    ]


def seed_of(seed: int, prompt_id: str, number: int) -> int:
    """63 bits."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_missing(pictures: Sequence[Picture], draw: Draw, batch_size: int, name: str, ranks: Ranks) -> None:
    """Returns in all processes when every picture is there.

    The longest texts come first: what does not fit into memory, or into the context, fails at once.
    """
    order = sorted(pictures, key=lambda picture: -len(picture.text))  # stable
    blocks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    missing = [i for i, block in enumerate(blocks) if not all(picture.path.is_file() for picture in block)]
    own = ranks.gather(missing)[0][ranks.rank :: ranks.size]  # as the first process sees it
    with tqdm(total=sum(len(blocks[i]) for i in own), desc=name, unit="image", disable=ranks.rank > 0 or None) as bar:
        for i in own:
            images = draw([picture.text for picture in blocks[i]], [picture.seed for picture in blocks[i]])
            for picture, image in zip(blocks[i], images, strict=True):
                save_whole(image, picture.path)
            bar.update(len(images))
    ranks.barrier()


def claim(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Makes `folder` the one of these settings. Raises ValueError where it holds what this command did not make."""
    own, mark = json.loads(json.dumps(dict(made_from))), folder / "made_from.json"
    if mark.is_file():
        theirs = read_json(mark)
        if theirs == own:
            return
        aside = _aside(folder, theirs)
        os.rename(folder, aside)
        names = sorted(name for name in {*theirs, *own} if theirs.get(name) != own.get(name))
        print(f"the pictures in {folder} differ in {', '.join(names)}: they are in {aside} now")
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are not of this command: choose another `out`")
    if _aside(folder, own).is_dir():
        os.rename(_aside(folder, own), folder)
    write_json(mark, own)


def _aside(folder: Path, made_from: Mapping[str, Any]) -> Path:
    return folder.with_name(f"{folder.name}-{fingerprint(made_from)}")


def _warnings(prompt_set: PromptSet, everything: Sequence[Prompt]) -> dict[str, int]:
    if prompt_set.official_prompts in (None, len(everything)):
        return {}
    return {f"prompts_instead_of_the_official_{prompt_set.official_prompts}": len(everything)}
