"""`dualtoken demo`: the model in a browser, in three tabs, for this machine alone unless told otherwise.

Every click is a job of the same engine that the HTTP server has: one thread runs the model, and several visitors share
its batches.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from serve.config import Limits
from serve.extras import require

if TYPE_CHECKING:
    import gradio as gr

    from serve.engine import Engine

EXAMPLES = "assets/emoji/unseen_style-000000.tar.gz"
SYSTEM_FONTS = ["system-ui", "sans-serif"]  # the page loads nothing from elsewhere
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#title h1 { margin: 0.6rem 0 0; }
#title p { margin: 0.2rem 0 0; color: var(--body-text-color-subdued); }
.crisp img { image-rendering: pixelated; }
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 shows the page to other machines too (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="where the page is (%(default)s)")
    parser.add_argument(
        "--examples", default=EXAMPLES, metavar="SHARD", help="pictures to try, where it exists (%(default)s)"
    )


def run(args: Namespace) -> None:
    require("demo", "gradio")
    from eval.load import load
    from serve.engine import Engine
    from serve.server import LOOPBACK, listen

    listen(args.host, args.port).close()
    limits = Limits()
    engine = Engine(load(args.model), limits)
    page = build(engine, args.model, args.examples)
    print(f"The demo is at http://{args.host}:{args.port}; Ctrl-C ends it.", flush=True)
    if args.host not in LOOPBACK:
        print(f"Whoever reaches {args.host} may use it.", flush=True)
    launch(page, limits, args.host, args.port)


def build(engine: Engine, name: str, examples: str) -> gr.Blocks:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    from serve import demo_chat, demo_codes, demo_draw
    from serve.demo_parts import example_pictures

    pictures = example_pictures(examples)
    with gr.Blocks(title="DualToken", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# DualToken\n{describe(engine, name)}", elem_id="title")
        with gr.Tab("Chat"):
            demo_chat.build(engine, pictures)
        with gr.Tab("Draw"):
            demo_draw.build(engine)
        with gr.Tab("Reconstruct"):
            demo_codes.build(engine, pictures)
    return page


def launch(page: gr.Blocks, limits: Limits, host: str, port: int, block: bool = True) -> None:
    import gradio as gr

    from serve.server import hosts_allowed

    theme = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=SYSTEM_FONTS, font_mono=["monospace"])
    page.queue(max_size=limits.queue, default_concurrency_limit=4)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        theme=theme,
        css=CSS,
        show_error=True,
        footer_links=[],
        run_history=False,
        max_file_size=limits.body_bytes,
        app_kwargs={"middleware": list(hosts_allowed(host))},
        prevent_thread_lock=not block,
    )


def describe(engine: Engine, name: str) -> str:
    """One line about the model under the title."""
    millions = sum(parameter.numel() for parameter in engine.model.parameters()) / 1e6
    shown = "/".join(Path(name).parts[-3:])
    size, visual = engine.tokenizer.image_size, engine.model.visual
    return (
        f"One model that sees, answers and draws. `{shown}`: {millions:.0f} million parameters; a picture of "
        f"{size} × {size} pixels is {visual.num_patches} patches of {visual.depth} pixel and {visual.depth} "
        "semantic codes."
    )
