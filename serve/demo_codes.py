"""The tab that looks at codes: a picture, its two code maps, and what is left when either kind is shuffled.

The decoder reads pixel codes alone, the language model both: so shuffled semantic codes leave the picture as it is and
change what is said about it, and shuffled pixel codes take the picture apart.
"""

from typing import Any

import gradio as gr
import torch
from PIL import Image

from data.images import ImageTransform, to_pil
from data.vocabulary import CAPTION_REQUEST
from eval.reconstruction import from_pixel_values, psnr
from mllm.answer import GREEDY
from serve.batcher import Done
from serve.code_map import code_map, palette, shuffled
from serve.conversation import user_message
from serve.demo_parts import SHOWN, Picture, enlarged, read, results
from serve.engine import Engine
from tokenizer import DualCodes

EXPLANATION = (
    "The decoder draws from pixel codes alone, and the language model reads both kinds: with shuffled semantic codes "
    "the picture stays to the last pixel while its meaning and what the model says may change; with shuffled pixel "
    "codes the picture falls apart while the image feature stays."
)
VARIANTS = ("as encoded", "semantic codes shuffled", "pixel codes shuffled")


def build(engine: Engine, pictures: list[str]) -> None:
    depth = engine.model.visual.depth
    palettes = [[palette(book) for book in books] for books in engine.tokenizer.codebooks()]
    codes = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = Picture(
                label="A picture", type="filepath", sources=["upload", "clipboard"], height=300, elem_id="upload"
            )
            if pictures:
                gr.Examples(pictures, upload, label="Pictures to try")
            level = gr.Slider(
                1,
                depth,
                value=1,
                step=1,
                label="Depth of the code maps",
                info="each depth adds detail to the one before",
            )
        with gr.Column(scale=5, min_width=480):
            with gr.Row():
                original, decoded = _shown("What the tokenizer sees"), _shown("Reconstruction")
                pixel_map, semantic_map = _shown("Pixel codes", crisp=True), _shown("Semantic codes", crisp=True)
            gr.Markdown(EXPLANATION)
            with gr.Row():
                semantic_shuffled = _shown("Semantic codes shuffled")
                pixel_shuffled = _shown("Pixel codes shuffled")
            table = gr.Markdown(elem_id="codes-table")

    def look(path: str | None, level: int) -> tuple[Any, ...]:
        if path is None:
            return (None,) * 8
        picture = read(path, engine)
        target = ImageTransform(engine.tokenizer.image_size, engine.tokenizer.config.crop)(picture)
        seen = engine.see(picture)
        variants = [seen, shuffled(seen, "semantic"), shuffled(seen, "pixel")]
        images = engine.tokenizer.decode(torch.stack([codes.pixel for codes in variants])).cpu()
        features = engine.tokenizer.pooled_features(torch.stack([codes.semantic for codes in variants]))
        decibels = psnr(from_pixel_values(target.expand_as(images)), from_pixel_values(images))
        figures = zip(decibels.tolist(), torch.cosine_similarity(features, features[:1]).tolist(), strict=True)
        rows = ["| | PSNR | image feature, cosine to the first | what the model says it is |", "|---|---|---|---|"]
        for name, codes, (decibel, cosine) in zip(VARIANTS, variants, figures, strict=True):
            rows.append(f"| {name} | {decibel:.1f} dB | {cosine:.2f} | {_plain(_caption(engine, codes))} |")
        shown = [enlarged(to_pil(image)) for image in (target, *images)]
        return seen, *shown, *maps(seen, level), "\n".join(rows)

    def maps(codes: DualCodes | None, level: int) -> tuple[Image.Image | None, Image.Image | None]:
        if codes is None:
            return None, None
        pixel, semantic = (
            code_map(branch[:, level - 1], colors[min(level, len(colors)) - 1], engine.model.visual.grid, SHOWN)
            for branch, colors in zip(codes, palettes, strict=True)
        )
        return pixel, semantic

    pictures_out = [original, decoded, semantic_shuffled, pixel_shuffled, pixel_map, semantic_map]
    upload.change(
        look, [upload, level], [codes, *pictures_out, table], show_progress="minimal", api_visibility="private"
    )
    level.release(maps, [codes, level], [pixel_map, semantic_map], show_progress="hidden", api_visibility="private")


def _shown(label: str, crisp: bool = False) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        format="png",
        height=SHOWN,
        min_width=150,
        buttons=[],
        elem_classes=["crisp"] if crisp else [],
    )


def _caption(engine: Engine, codes: DualCodes) -> str:
    request = engine.chat_request([user_message([codes, CAPTION_REQUEST])], GREEDY, 0, 64)
    parts = results(engine.submit_chat, request, engine.limits.seconds)
    return "".join(part for part in parts if not isinstance(part, Done))


def _plain(text: str) -> str:
    """Text in a cell of a table, none of it markup."""
    kept = "".join(character for character in text if character.isalnum() or character in " ,.-'?!:")
    return " ".join(kept.split()) or "nothing"
