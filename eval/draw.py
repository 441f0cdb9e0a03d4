"""Pictures drawn from prompts, each kept with everything needed to draw it again in its PNG's text chunks.

prompt, seed       what was asked for
settings           JSON: every field of SamplingConfig, with the seed and the folder of the model
model_id           hash of the model's folder, however that is called
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from data.images import to_pil
from data.records import Records
from eval.sheets import contact_sheet
from heads.sampling import SamplingConfig
from mllm.generate import generate_images
from mllm.pretrained import Unified

SHEET_PICTURES = 64  # more make a sheet that no viewer opens


class Wanted(NamedTuple):
    """A picture to draw."""

    prompt: str
    seed: int
    path: Path


class Origin(NamedTuple):
    """The model that draws."""

    folder: str
    id: str


def read_prompts(path: str, seed: int = 0) -> list[tuple[str, int]]:
    """Prompts and first seeds: a prompt a line of a .txt file, or `prompt` and perhaps `seed` of each .jsonl record."""
    records, prompts = Records(path), list[tuple[str, int]]()
    for number in range(len(records)):
        record = records[number]
        prompt, own_seed = record.get("prompt", record.get("text")), record.get("seed", seed)
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f'record {number} of {path!r} has no prompt: write {{"prompt": "a red apple"}}')
        if not isinstance(own_seed, int) or isinstance(own_seed, bool):
            raise ValueError(f"record {number} of {path!r} has the seed {own_seed!r}, which is no whole number")
        prompts.append((prompt, own_seed))
    if not prompts:
        raise ValueError(f"{path!r} holds no prompts: write one a line")
    return prompts


def pictures_of(prompts: Sequence[tuple[str, int]], out: str, num: int = 1) -> list[Wanted]:
    """`num` pictures of each prompt, with its seed, the next one, … The files of several prompts are numbered."""
    if not all(prompt.strip() for prompt, _ in prompts):
        raise ValueError('the prompt is empty: say what to draw, such as "a red apple, 3d style"')
    if num < 1:
        raise ValueError(f"--num {num}: at least one picture must be drawn")
    numbers = [f"{number:05d}-" if len(prompts) > 1 else "" for number in range(len(prompts))]
    return [
        Wanted(prompt, seed + i, Path(out, f"{number}{_slug(prompt)}-{seed + i}.png"))
        for number, (prompt, seed) in zip(numbers, prompts, strict=True)
        for i in range(num)
    ]


def draw_pictures(
    unified: Unified,
    wanted: Sequence[Wanted],
    sampling: SamplingConfig,
    origin: Origin,
    batch_size: int = 16,
    quiet: bool = False,
) -> None:
    """Writes each picture as soon as its batch is drawn. A picture depends on its own prompt and seed alone."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    with tqdm(total=len(wanted), desc="draw", unit="image", disable=quiet) as bar:
        for start in range(0, len(wanted), batch_size):
            batch = wanted[start : start + batch_size]
            images = draw_batch(unified, [each.prompt for each in batch], sampling, [each.seed for each in batch])
            for each, image in zip(batch, images, strict=True):
                save_picture(image, each, sampling, origin)
            bar.update(len(batch))


def draw_batch(unified: Unified, captions: list[str], sampling: SamplingConfig, seeds: list[int]) -> list[Image.Image]:
    """One picture per caption and seed, in one batch."""
    codes = generate_images(unified.model, unified.vocabulary, captions, sampling, seeds)
    return [to_pil(image) for image in unified.tokenizer.decode(codes.pixel)]


def save_picture(image: Image.Image, wanted: Wanted, sampling: SamplingConfig, origin: Origin) -> None:
    info = PngInfo()
    info.add_itxt("prompt", wanted.prompt.encode(errors="replace").decode())  # half a surrogate pair is no text
    info.add_itxt("seed", str(wanted.seed))
    info.add_itxt("settings", json.dumps({**asdict(sampling), "seed": wanted.seed, "model": origin.folder}))
    info.add_itxt("model_id", origin.id)
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    image.save(wanted.path, pnginfo=info)


def write_sheet(wanted: Sequence[Wanted], path: Path) -> None:
    """A contact sheet of the first pictures, with their prompts where these differ."""
    first = wanted[:SHEET_PICTURES]
    images = [Image.open(each.path) for each in first]
    prompts = [each.prompt for each in first]
    captions = prompts if len(set(prompts)) > 1 else None
    contact_sheet(images, min(len(images), 8), captions, scale=max(1, 128 // images[0].width)).save(path)


def _slug(caption: str) -> str:
    """Letters and digits of any script, joined by hyphens: a file name on every system, which count bytes."""
    words = "-".join(re.findall(r"\w+", caption[:1000].lower())).encode(errors="ignore")[:100]
    return words.decode(errors="ignore").strip("-_") or "image"
