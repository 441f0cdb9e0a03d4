"""The tab that draws: a prompt, how to sample, and the pictures while they come to be."""

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from heads.sampling import SamplingConfig
from serve.batcher import Done
from serve.demo_parts import enlarged, mistake, results
from serve.engine import DrawRequest, Engine

PROMPTS = [
    "a smiling face, 3d style",
    "a red apple, 3d style",
    "flag of Japan, flat style",
    "a blue circle, flat style",
    "man with beard, medium skin tone, 3d style",
    "a cat face, flat style",
]
PREVIEW_ROWS = 1


def build(engine: Engine) -> None:
    most = min(engine.limits.drawings, engine.limits.batch_rows)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            prompt = gr.Textbox(
                label="What to draw",
                value=PROMPTS[0],
                lines=2,
                max_length=engine.limits.prompt_characters,
                elem_id="prompt",
            )
            with gr.Row():
                start = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop")
            gr.Examples(PROMPTS, prompt, label="Prompts to try")
            num = gr.Slider(1, most, value=min(4, most), step=1, label="Pictures")
            cfg = gr.Slider(
                0, 10, value=3, step=0.1, label="Guidance", info="how closely to follow the prompt; 1 is none"
            )
            temperature = gr.Slider(0, 2, value=0.8, step=0.05, label="Temperature", info="0 takes the likeliest codes")
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                fresh = gr.Checkbox(False, label="Another seed each time")
            with gr.Accordion("More", open=False):
                size = engine.model.visual.codebook_size
                top_k = gr.Slider(
                    0, size, value=min(200, size), step=1, label="Top-k", info="codes to draw from; 0 is all"
                )
                top_p = gr.Slider(
                    0.01, 1, value=1, step=0.01, label="Top-p", info="of their probability, the likeliest"
                )
        with gr.Column(scale=3, min_width=360):
            shown = gr.Gallery(
                label="Drawings", columns=2, object_fit="contain", height=690, format="png", elem_id="drawings"
            )
            status = gr.Markdown("Pictures appear row by row while they are drawn.", elem_id="draw-status")

    def draw(
        caption: str, num: int, cfg: float, temperature: float, seed: int | None, fresh: bool, top_k: int, top_p: float
    ) -> Iterator[tuple[Any, str, Any]]:
        if not caption.strip():
            raise mistake("Say in a few words what to draw.")
        first = random.randrange(2**31) if fresh or seed is None else int(seed)
        try:
            sampling = SamplingConfig(cfg=cfg, temperature=temperature, top_k=int(top_k), top_p=top_p)
            request = DrawRequest(caption, sampling, list(range(first, first + min(int(num), most))), PREVIEW_ROWS)
            engine.check_drawing(request)
        except (ValueError, TypeError) as error:
            raise mistake(str(error)) from error
        yield gr.skip(), "Waiting for the model …", first
        for result in results(engine.submit_drawing, request, engine.limits.seconds):
            if isinstance(result, Done):
                yield _labelled(result.value, request.seeds), _says(request), first
            else:
                yield _labelled(result.images, request.seeds), f"Drawing … {result.share:.0%}", first

    inputs = [prompt, num, cfg, temperature, seed, fresh, top_k, top_p]
    events = [
        event(draw, inputs, [shown, status, seed], show_progress="hidden", api_visibility="private")
        for event in (start.click, prompt.submit)
    ]
    stop.click(lambda: "Stopped.", None, status, cancels=events, queue=False, api_visibility="private")


def _labelled(images: list[Image.Image], seeds: list[int]) -> list[tuple[Image.Image, str]]:
    return [(enlarged(image), f"seed {seed}") for image, seed in zip(images, seeds, strict=True)]


def _says(request: DrawRequest) -> str:
    sampling = request.sampling
    return (
        f"Guidance {sampling.cfg:g}, temperature {sampling.temperature:g}. "
        "The same seed and settings draw the same picture again."
    )
