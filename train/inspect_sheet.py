"""Packed rows as one picture, for a place without a browser."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from train.inspect_rows import DocumentView, RowView

WIDTH, MARGIN, LINE, SIDE, GAP = 1100, 16, 20, 72, 6
LEARNED, READ, DRAWN_EDGE, SEEN_EDGE = "#cdeed8", "#eef0f3", "#1d7a46", "#5b7fb5"


def rows_as_sheet(rows: Sequence[RowView], pictures: Sequence[Image.Image] | None) -> Image.Image:
    """Green is learned, grey is only read; an image has the edge of its kind."""
    parts = [_Part(f"row {n} · {row.num_filled} of {row.length} positions") for n, row in enumerate(rows)]
    for part, row in zip(parts, rows, strict=True):
        for document in row.documents:
            part.add(document, pictures)
    sheet = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + 2 * MARGIN), "white")
    top = MARGIN
    for part in parts:
        sheet.paste(part.canvas.crop((0, 0, WIDTH, part.height)), (0, top))
        top += part.height
    return sheet


class _Part:
    """One row, drawn from left to right and top to bottom on a canvas that grows."""

    def __init__(self, title: str):
        folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
        self.font = ImageFont.truetype(str(folder / "DejaVuSansMono.ttf"), 13)
        self.small = ImageFont.truetype(str(folder / "DejaVuSans.ttf"), 11)
        self.canvas = Image.new("RGB", (WIDTH, 512), "white")
        self.draw = ImageDraw.Draw(self.canvas)
        bold = ImageFont.truetype(str(folder / "DejaVuSans-Bold.ttf"), 15)
        self.draw.text((MARGIN, 4), title, font=bold, fill="black")
        self.x, self.y, self.tallest = MARGIN, 28, 0

    @property
    def height(self) -> int:
        return self.y + self.tallest + GAP

    def add(self, document: DocumentView, pictures: Sequence[Image.Image] | None) -> None:
        name = "padding" if document.key is None else document.key
        self._begin_line(LINE)
        self.draw.line((MARGIN, self.y, WIDTH - MARGIN, self.y), fill="#b0b4bb")
        text = f"{name} · position ids 0–{document.length - 1}"
        self.draw.text((MARGIN, self.y + 3), text[:150], font=self.small, fill="#666c76")
        self._begin_line(LINE)
        for piece in document.pieces:
            if piece.image is not None:
                picture = None if pictures is None else pictures[piece.image]
                self._image(picture, DRAWN_EDGE if piece.is_learned else SEEN_EDGE)
                continue
            for place, text in enumerate(piece.text.split("\n")):
                if place:
                    self._text("↵", piece.is_learned)
                    self._begin_line(LINE)
                self._text(text, piece.is_learned)

    def _begin_line(self, height: int) -> None:
        if self.x > MARGIN or self.tallest:
            self.x, self.y, self.tallest = MARGIN, self.y + self.tallest + 2, 0
        self.tallest = max(self.tallest, height)
        while self.y + SIDE + 2 * LINE > self.canvas.height:
            taller = Image.new("RGB", (WIDTH, 2 * self.canvas.height), "white")
            taller.paste(self.canvas, (0, 0))
            self.canvas, self.draw = taller, ImageDraw.Draw(taller)

    def _text(self, text: str, is_learned: bool) -> None:
        width = int(self.font.getlength(text))
        if self.x + width > WIDTH - MARGIN:
            self._begin_line(LINE)
        box = (self.x, self.y + 1, self.x + width, self.y + LINE - 2)
        self.draw.rectangle(box, fill=LEARNED if is_learned else READ)
        self.draw.text((self.x, self.y + 1), text, font=self.font, fill="black")
        self.x += width + 1

    def _image(self, picture: Image.Image | None, edge: str) -> None:
        if self.x + SIDE > WIDTH - MARGIN:
            self._begin_line(LINE)
        box = (self.x + 3, self.y + 2)
        self.draw.rectangle((self.x + 1, self.y, self.x + SIDE - 2, self.y + SIDE - 3), fill=edge)
        inner = Image.new("RGB", (8, 8), "#d8dade") if picture is None else picture
        self.canvas.paste(inner.resize((SIDE - 7, SIDE - 7)), (box[0] + 1, box[1] + 1))
        self.x += SIDE + 2
        self.tallest = max(self.tallest, SIDE)
