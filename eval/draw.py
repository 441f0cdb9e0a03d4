"""`dualtoken generate`: pictures drawn from a caption, each kept with everything needed to draw it again."""

import json
import re
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from data.images import to_pil
from eval.load import load
from eval.sheets import contact_sheet
from heads.sampling import SamplingConfig
from mllm.generate import generate_images
from mllm.pretrained import Unified


def draw(
    caption: str, model_folder: str, out: str, sampling: SamplingConfig, num: int = 1, seed: int = 0, batch: int = 16
) -> list[Path]:
    """Draws `caption` `num` times, with seeds `seed`, `seed` + 1, …, into the folder `out`; returns the paths.

    Beside them lies `sheet.png`, all of them together. A picture depends on its seed alone, not on `num` or `batch`.
    """
    if not caption.strip():
        raise ValueError('the prompt is empty: say what to draw, such as "a red apple, 3d style"')
    if num < 1:
        raise ValueError(f"--num {num}: at least one picture must be drawn")
    unified = load(model_folder)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    images: list[Image.Image] = []
    with tqdm(total=num, desc="draw", unit="image") as bar:
        for start in range(0, num, batch):
            seeds = list(range(seed + start, seed + min(start + batch, num)))
            images += draw_batch(unified, [caption] * len(seeds), sampling, seeds)
            bar.update(len(seeds))
    paths = [folder / f"{_slug(caption)}-{seed + i}.png" for i in range(num)]
    for i, (path, image) in enumerate(zip(paths, images, strict=True)):
        image.save(path, pnginfo=_describe(caption, sampling, seed + i, model_folder))
    contact_sheet(images, columns=min(num, 8), scale=max(1, 128 // images[0].width)).save(folder / "sheet.png")
    return paths


def draw_batch(unified: Unified, captions: list[str], sampling: SamplingConfig, seeds: list[int]) -> list[Image.Image]:
    """One picture per caption and seed, in one batch."""
    codes = generate_images(unified.model, unified.vocabulary, captions, sampling, seeds)
    return [to_pil(image) for image in unified.tokenizer.decode(codes.pixel)]


def _describe(caption: str, sampling: SamplingConfig, seed: int, model_folder: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt("prompt", caption)
    info.add_itxt("settings", json.dumps({**asdict(sampling), "seed": seed, "model": model_folder}))
    return info


def _slug(caption: str) -> str:
    """Letters and digits of any script, joined by hyphens: a file name on every system."""
    return "-".join(re.findall(r"\w+", caption.lower()))[:60].strip("-_") or "image"
