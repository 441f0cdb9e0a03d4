"""The tab that looks at codes: a picture, its two code maps, and what is left when either kind of codes is disturbed.

The decoder reads pixel codes alone: whatever happens to semantic codes, the picture stays. The image feature reads
semantic codes alone, and above their layer a SigLIP knows no places: shuffled codes leave it, other codes do not.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr
import torch
from PIL import Image

from data.images import ImageTransform, to_pil
from data.vocabulary import CAPTION_REQUEST
from eval.reconstruction import from_pixel_values, psnr
from mllm.answer import GREEDY
from serve.batcher import Done
from serve.code_map import code_map, palette, randomised, shuffled
from serve.conversation import user_message
from serve.demo_parts import SHOWN, enlarged, read, results
from serve.engine import Engine
from tokenizer import DualCodes

EXPLANATION = (
    "The decoder reads pixel codes alone, so nothing that happens to semantic codes changes the picture; the image "
    "feature reads semantic codes alone, and which they are rather than where they stand; the language model reads "
    "both. Below each picture: what the model says it is, PSNR against the original, and the cosine of its image "
    "feature to that of the codes as they are."
)
VARIANTS: dict[str, Callable[[DualCodes, int], DualCodes]] = {
    "Reconstruction": lambda codes, size: codes,
    "Semantic codes shuffled": lambda codes, size: shuffled(codes, "semantic"),
    "Random semantic codes": lambda codes, size: randomised(codes, "semantic", size),
    "Pixel codes shuffled": lambda codes, size: shuffled(codes, "pixel"),
}


def build(engine: Engine, pictures: list[str]) -> None:
    depth = engine.model.visual.depth
    quantizers = engine.tokenizer.pixel_quantizer, engine.tokenizer.semantic_quantizer
    palettes = [[palette(book) for book in quantizer.stacked_codebooks()] for quantizer in quantizers]
    kept = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = gr.Image(
                label="A picture",
                type="filepath",
                image_mode=None,  # gradio would decode it before its size is known
                sources=["upload", "clipboard"],
                height=300,
                elem_id="upload",
            )
            if pictures:
                gr.Examples(pictures, upload, label="Pictures to try")
            info = "each depth adds detail to the one before"
            level = gr.Slider(1, depth, value=1, step=1, label="Depth of the maps", info=info)
        with gr.Column(scale=5, min_width=480):
            with gr.Row():
                original = _shown("Original")
                pixel_map, semantic_map = _shown("Pixel codes", crisp=True), _shown("Semantic codes", crisp=True)
            gr.Markdown(EXPLANATION)
            with gr.Row():
                decoded, said = zip(*map(_variant, VARIANTS), strict=True)

    def look(path: str | None, level: int) -> tuple[Any, ...]:
        if path is None:
            return (None,) * len(outputs)
        picture = read(path, engine)
        target = ImageTransform(engine.tokenizer.image_size, engine.tokenizer.config.crop)(picture)
        seen = engine.see(picture)
        variants = [change(seen, engine.model.visual.codebook_size) for change in VARIANTS.values()]
        images = engine.tokenizer.decode(torch.stack([codes.pixel for codes in variants])).cpu()
        features = engine.tokenizer.pooled_features(torch.stack([codes.semantic for codes in variants]))
        decibels = psnr(from_pixel_values(target.expand_as(images)), from_pixel_values(images))
        cosines = torch.cosine_similarity(features, features[:1])
        words = [
            f"“{_plain(_caption(engine, codes))}”\n\n{decibel:.1f} dB · feature {cosine:.2f}"
            for codes, decibel, cosine in zip(variants, decibels.tolist(), cosines.tolist(), strict=True)
        ]
        return seen, *(enlarged(to_pil(image)) for image in (target, *images)), *maps(seen, level), *words

    def maps(codes: DualCodes | None, level: int) -> tuple[Image.Image | None, Image.Image | None]:
        if codes is None:
            return None, None
        pixel, semantic = (
            code_map(branch[:, level - 1], colors[min(level, len(colors)) - 1], engine.model.visual.grid, SHOWN)
            for branch, colors in zip(codes, palettes, strict=True)
        )
        return pixel, semantic

    outputs = [kept, original, *decoded, pixel_map, semantic_map, *said]
    upload.change(look, [upload, level], outputs, show_progress="minimal", api_visibility="private")
    level.release(maps, [kept, level], [pixel_map, semantic_map], show_progress="hidden", api_visibility="private")


def _variant(name: str) -> tuple[gr.Image, gr.Markdown]:
    """A picture, and below it what the model says it is."""
    with gr.Column(min_width=120, elem_id=name.lower().replace(" ", "-")):
        gr.Markdown(f"**{name}**")
        return _picture(), gr.Markdown()


def _shown(name: str, crisp: bool = False) -> gr.Image:
    with gr.Column(min_width=120):
        gr.Markdown(f"**{name}**")
        return _picture(["crisp"] if crisp else [])


def _picture(classes: list[str] | None = None) -> gr.Image:
    return gr.Image(
        show_label=False, interactive=False, format="png", height=220, min_width=120, buttons=[], elem_classes=classes
    )


def _caption(engine: Engine, codes: DualCodes) -> str:
    request = engine.chat_request([user_message([codes, CAPTION_REQUEST])], GREEDY, 0, 64)
    parts = results(engine.submit_chat, request, engine.limits.seconds)
    return "".join(part for part in parts if not isinstance(part, Done))


def _plain(text: str) -> str:
    """Text without anything that Markdown could take for more."""
    kept = "".join(character for character in text if character.isalnum() or character in " ,.-'?!:")
    return " ".join(kept.split()) or "nothing"
