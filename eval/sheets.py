"""Contact sheets: rows of images with an optional caption under each."""

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data.images import to_pil
from tokenizer import DualTokenizer

GAP = 4


def contact_sheet(
    images: Sequence[Image.Image], columns: int, captions: Sequence[str] | None = None, scale: int = 1
) -> Image.Image:
    """A white sheet of equally sized images, row by row, each `scale` × its size, captions wrapped below."""
    width, height = (side * scale for side in images[0].size)
    font = ImageFont.load_default(size=10)
    lines = [textwrap.wrap(c, max(width // 6, 8))[:3] for c in captions] if captions else [[] for _ in images]
    cell_height = height + 12 * max(map(len, lines)) + GAP
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * cell_height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, lines, strict=True)):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * cell_height
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), (x, y))
        draw.multiline_text((x, y + height), "\n".join(text), fill="black", font=font, spacing=1)
    return sheet


@torch.no_grad()
def reconstruction_sheet(
    tokenizer: DualTokenizer,
    pixel_values: Tensor,
    columns: int = 8,
    scale: int = 2,
    captions: list[str] | None = None,
) -> Image.Image:
    """Originals float[B, 3, h, w] over their reconstructions from pixel codes, `columns` per row, captions below."""
    decoded = tokenizer.decode(tokenizer.encode(pixel_values).pixel)
    images: list[Image.Image] = []
    below: list[str] = []
    for start in range(0, len(pixel_values), columns):
        texts = (captions or [""] * len(pixel_values))[start : start + columns]
        for tensor, row_texts in ((pixel_values, [""] * len(texts)), (decoded, texts)):
            row = [to_pil(image) for image in tensor[start : start + columns]]
            missing = columns - len(row)
            images += row + [Image.new("RGB", row[0].size, "white")] * missing
            below += row_texts + [""] * missing
    return contact_sheet(images, columns, captions=below if captions else None, scale=scale)
