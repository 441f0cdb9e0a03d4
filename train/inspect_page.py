"""Packed rows as one HTML page without scripts or links: tokens by whether they are learned, images in their places."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from train.inspect_rows import DocumentView, Piece, RowView

KEY = (
    '<p class="key"><b class="learned"> learned </b> · <b> only read </b> · images with a green edge are drawn, those '
    "with a blue edge are seen. Attention stays within a box; position ids begin at 0 in each.</p>"
)


def rows_as_page(
    title: str, rows: Sequence[RowView], pictures: Sequence[Image.Image] | None, statistics: Mapping[str, str]
) -> str:
    """`pictures` are the decoded images in the order of the batch; None where no tokenizer could decode them."""
    style = Path(__file__).with_name("inspect.css").read_text()
    facts = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in statistics.items())
    body = "\n".join(_row(number, row, pictures) for number, row in enumerate(rows))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{style}</style></head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="muted">What the model sees, row by row.</p>\n{KEY}\n'
        f"<table>{facts}</table>\n{body}\n</body></html>\n"
    )


def _row(number: int, row: RowView, pictures: Sequence[Image.Image] | None) -> str:
    strip = "".join(
        f'<i{" class=padding" if d.key is None else ""} style="width:{100 * d.length / row.length:.3f}%"></i>'
        for d in row.documents
    )
    documents = "\n".join(_document(document, pictures) for document in row.documents if document.key is not None)
    head = f"Row {number} · {row.num_filled} of {row.length} positions"
    return f'<h2>{head}</h2><div class="strip">{strip}</div>\n{documents}'


def _document(document: DocumentView, pictures: Sequence[Image.Image] | None) -> str:
    last = document.start + document.length - 1
    head = f"{document.key} · places {document.start}–{last} · position ids 0–{document.length - 1}"
    pieces = "".join(_piece(piece, pictures) for piece in document.pieces)
    return f'<div class="document"><h3>{escape(head)}</h3><div class="tokens">{pieces}</div></div>'


def _piece(piece: Piece, pictures: Sequence[Image.Image] | None) -> str:
    learned = ' class="learned"' if piece.is_learned else ""
    if piece.image is None:
        text = escape(piece.text).replace("\n", "↵\n")
        return f'<b{learned} title="position {piece.position}">{text}</b>'
    picture = '<span class="blank"></span>'
    if pictures is not None:
        data = io.BytesIO()
        pictures[piece.image].save(data, "PNG")
        picture = f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
    last = piece.position + piece.num_tokens - 1
    return f"<figure{learned}>{picture}<figcaption>{piece.position}–{last}</figcaption></figure>"
