"""The few HTML elements of the report; everything shown passes through `escape` here, and nothing is linked in."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class Html(str):
    """Text that is HTML already, and so is not escaped again."""


class Section(NamedTuple):
    anchor: str
    title: str
    lead: str  # one or two sentences under the title
    body: str  # HTML


def page(title: str, subtitle: str, header: str, sections: Sequence[Section], footer: str) -> str:
    """The whole document, with its style inside."""
    style = Path(__file__).with_name("report.css").read_text()
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    blocks = "\n".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>'
        f'<p class="muted">{escape(section.lead)}</p>{section.body}</section>'
        for section in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>\n'
        f"<style>\n{style}</style></head>\n<body>\n<header><h1>{escape(title)}</h1>"
        f'<p class="muted">{escape(subtitle)}</p><nav>{links}</nav>{header}</header>\n<main>\n{blocks}\n</main>\n'
        f"<footer>{escape(footer)}</footer>\n</body></html>\n"
    )


def tile(name: str, figure: str, unit: str, beside: str) -> str:
    """A headline figure with what it is to be compared with."""
    return (
        f'<div class="tile"><dd class="figure">{escape(figure)}<span class="unit"> {escape(unit)}</span></dd>'
        f'<dt>{escape(name)}</dt><dd class="beside">{escape(beside)}</dd></div>'
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None) -> str:
    """Texts on the left, figures on the right; column `strong` is the one to look at."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(_cell(cell, i == strong) for i, cell in enumerate(row)) + "</tr>" for row in rows)
    narrow = " narrow" if len(header) < 4 else ""
    return f'<div class="scroll{narrow}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(share: float) -> Html:
    """A table cell with a bar over `share` of its width."""
    return Html(f'<span style="width:{100 * share:.1f}%"></span>')


def picture(path: Path, caption: str) -> str:
    text = escape(caption)
    return f'<figure><img src="{data_uri(path)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def chart(title: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def charts(figures: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def answer(image: Path, question: str, prediction: str, reference: str, right: bool) -> str:
    mark, kind = ("✓", "right") if right else ("✗", "wrong")
    truth = "" if right else f'<p class="muted">expected: {escape(reference)}</p>'
    return (
        f'<div class="answer {kind}"><img src="{data_uri(image)}" alt=""><div><p>{escape(question)}</p>'
        f'<p class="said">{mark} {escape(prediction) or "(nothing)"}</p>{truth}</div></div>'
    )


def missing(what: str, command: str) -> str:
    """In place of what the run does not hold."""
    return f'<p class="missing">{escape(what)} To make it: <code>{escape(command)}</code></p>'


def details(summary: str, text: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def data_uri(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} is not a picture that a page can hold: give a PNG, JPEG or WebP")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _cell(content: str, strong: bool) -> str:
    if isinstance(content, Html):
        return f'<td class="bar">{content}</td>'
    return f'<td class="strong">{escape(content)}</td>' if strong else f"<td>{escape(content)}</td>"
