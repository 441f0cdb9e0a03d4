"""Packed rows on a terminal: what is learned in green, what is only read in grey, and where documents begin."""

from collections.abc import Sequence
from itertools import groupby

from train.inspect_rows import DocumentView, Piece, RowView

LEARNED, READ, DRAWN, SEEN, FAINT, END = "\033[32m", "\033[0m", "\033[1;35m", "\033[36m", "\033[2m", "\033[0m"


def rows_as_text(rows: Sequence[RowView], in_colour: bool) -> str:
    """Without colours, what is learned stands in ⟦ ⟧."""
    return "\n".join(_row(number, row, in_colour) for number, row in enumerate(rows))


def _row(number: int, row: RowView, in_colour: bool) -> str:
    head = f"━━ row {number} · {row.num_filled} of {row.length} positions filled · {len(row.documents)} segments"
    return "\n".join([_style(head, "\033[1m", in_colour), *(_document(d, in_colour) for d in row.documents), ""])


def _document(document: DocumentView, in_colour: bool) -> str:
    last = document.start + document.length - 1
    name = document.key if document.key is not None else "(padding)"
    head = f"── {name} · places {document.start}–{last} · position ids 0–{document.length - 1}"
    body = "".join(
        _pieces(list(run), in_colour)
        for _, run in groupby(document.pieces, key=lambda piece: (piece.is_learned, piece.image))
    )
    return _style(head, FAINT, in_colour) + (f"\n{body}" if body else "")


def _pieces(pieces: list[Piece], in_colour: bool) -> str:
    first = pieces[0]
    if first.image is not None:
        what = "drawn" if first.is_learned else "seen"
        text = f"⟨image {first.image}, {what}, {first.num_tokens} positions⟩"
        return _style(text, DRAWN if first.is_learned else SEEN, in_colour)
    text = "".join(piece.text for piece in pieces).replace("\033", "\\033")  # what data say does not steer a terminal
    if not in_colour:
        return f"⟦{text}⟧" if first.is_learned else text
    return _style(text, LEARNED if first.is_learned else READ, in_colour)


def _style(text: str, code: str, in_colour: bool) -> str:
    return f"{code}{text}{END}" if in_colour else text
