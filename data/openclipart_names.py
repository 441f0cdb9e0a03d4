"""What a clip-art picture shows, from its SVG file and its file name: names, keywords and captions.

Many titles name a collection ("gramastar", "Lemon SVG theme") and not the picture; a title that more than a few files
share is dropped for the file's own name, from which the author and the numbers are taken off.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SHARED_BY = 3
"""A title of more files than this names a collection."""
_SUITS = {"h": "hearts", "d": "diamonds", "s": "spades", "c": "clubs"}
_CARDS = {"k": "king", "q": "queen", "j": "jack", "a": "ace", "1": "ace"}
_NOISE = {"hash", "unsorted", "theme", "icons", "clipart", "various", "general", "submission", "images"}


@dataclass(frozen=True)
class Described:
    title: str = ""
    author: str = ""
    keywords: list[str] = field(default_factory=list)


def read_metadata(svg: str) -> Described:
    """Title, author and keywords of an SVG file's text, by patterns: many of the files are no well-formed XML."""
    work = _between(svg, "<cc:Work", "</cc:Work>") or svg
    creator = _between(work, "<dc:creator", "</dc:creator>")
    rest = re.sub(r"<dc:(creator|publisher|rights)\b.*?</dc:\1>", "", work, flags=re.DOTALL)
    listed = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", rest, re.DOTALL)
    keywords = (_plain(word).lower().replace("_", " ") for word in listed)
    usable = [word for word in keywords if re.fullmatch(r"[a-z][a-z '&-]{1,30}", word) and word not in _NOISE]
    return Described(_title(rest), _title(creator), list(dict.fromkeys(usable)))


def name_of(path: str, described: Described, title_uses: Mapping[str, int]) -> str:
    """The name of the picture at `food/fruit/lime_whole_ganson.png`."""
    title = re.sub(r"^clip ?art by .*? - ", "", described.title, flags=re.IGNORECASE)
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    if special := _special(path, stem):
        return special
    is_own = 0 < title_uses.get(described.title, 0) <= SHARED_BY and re.search(r"[^\W\d]{3}", title)
    words = _words(title if is_own else stem)
    if not is_own:
        authors = {word for word in _words(described.author) if len(word) > 2}
        while len(words) > 1 and (len(words[-1]) == 1 or words[-1] in authors or _cut_off(words[-1], authors)):
            words.pop()
    return " ".join(words)


def group_of(name: str) -> str:
    """Pictures of one group are on one side of the split: `muffin` and `muffin 2`, all stars."""
    return " ".join(re.sub(r"\d+", "", name).split()) or name


def captions_of(name: str, path: str, keywords: list[str]) -> list[str]:
    """The canonical caption, then the same in other words."""
    folder = path.split("/")[-2].replace("_", " ").replace("-", " ") if "/" in path else ""
    others = [word for word in keywords if word not in name][:3]
    phrasings = [
        f"{name}, clip art",
        f"clip art of {name}",
        *([f"{name} ({', '.join(others)}), clip art"] if others else []),
        *([f"{folder}: {name}"] if folder and folder not in ("unsorted", "duplicates") else []),
    ]
    return list(dict.fromkeys(phrasings))


def _special(path: str, stem: str) -> str:
    """The two large series whose names are codes."""
    if star := re.fullmatch(r"star_0*(\d+)pt0*(\d+)step", stem):
        return f"star with {star[1]} points and step {star[2]}"
    if card := re.fullmatch(r"(\w+)_([hdsc])_(\w+)", stem) if "/cards/" in f"/{path}" else None:
        return f"{card[1]} playing card {_CARDS.get(card[3], card[3])} of {_SUITS[card[2]]}"
    return ""


def _between(text: str, start: str, end: str) -> str:
    found = re.search(re.escape(start) + r"\b(.*?)" + re.escape(end), text, re.DOTALL)
    return found[1] if found else ""


def _title(text: str) -> str:
    found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", text, re.DOTALL)
    return _plain(found[1]) if found else ""


def _plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _words(text: str) -> list[str]:
    """Lower-case words without punctuation, version marks, and the numbers at the end."""
    words = [word for word in re.split(r"[^\w'&]+|_", text.lower()) if word]
    while len(words) > 1 and re.fullmatch(r"v?\d+\w?", words[-1]):
        words.pop()
    return words


def _cut_off(word: str, authors: set[str]) -> bool:
    """File names were cut at a length, in the middle of the author's name."""
    return len(word) > 1 and any(author.startswith(word) for author in authors)
