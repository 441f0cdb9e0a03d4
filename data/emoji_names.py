"""Names of emoji: the packages' upper-case Unicode names turned into words that people type (DESIGN.md §5).

`name_of` gives the one name used in canonical captions and in questions; `aliases_of` the other words under which the
same picture may be asked for; `with_article` adds "a" or "an" where a singular countable noun certainly takes one.
"""

import re
import unicodedata
from typing import Any

from data.emoji_overrides import NAMES

Entry = dict[str, Any]

_REWRITES = [  # applied in order to the lower-cased name; at most one usually matches
    (r"^clock face (\w+) oclock$", r"clock showing \1 o'clock"),
    (r"^clock face (\w+)-thirty$", r"clock showing half past \1"),
    (r"^squared (\w+)$", r"\1 button"),
    (r"^(person|man|woman): bald$", r"bald \1"),
    (r"^(person|man|woman): (\w+) hair$", r"\1 with \2 hair"),
    (r"^large (\w+) (circle|square)$", r"\1 \2"),
    (r"\bwomans\b", "woman's"),
    (r"\bmans\b", "man's"),
]
_FILLER = {  # words of the standard that name no visible thing, by subcategory
    "hand-fingers-open": " sign",
    "hand-fingers-partial": " sign",
    "hand-fingers-closed": " sign",
    "hands": " sign",
    "sky & weather": " symbol",
}
# First words of short names that mean something else, or nothing, to a reader who does not see the picture.
_UNHELPFUL = """
a ab abcd accept anger arrow arrows art b back bamboo bangbang barber beers beginner bell birthday black boot bow
bullettrain busstop calling capital chart city cl clap compression cool cop couplekiss dash date dizzy double eight
email end facepunch family fast feet five flags flipper four free fuelpump gift grey gun hand hankey hash heartpulse
heavy hotsprings id ideograph iphone jigsaw kissing koko loop loud lower m mag mans mask mega mens moneybag moon mute
negative new ng nine notes o ok on one pray question sa salt satisfied scissors seven shell shirt shit six soon sos
sound spock stars station sunny tada the thread three tm top train twisted two unlock up v vs wave weary white womans
womens x zap zero
"""
_UNHELPFUL_FIRST_WORDS = frozenset(_UNHELPFUL.split())
_UNCOUNTED = """
arts away bacon beans biceps bowling bread breast-feeding broccoli butter camping candy children cinema claim claus
collision control coral curry customs dango dna e-mail falafel fire fog foggy fondue food fuji garlic ginger hair ice
japan kaaba liberty liquid luggage metro money oden om polish poo popcorn racing rail rice sake salute soap
soccer spaghetti sushi tea together way wireless wood zzz
"""
_UNCOUNTED_HEADS = frozenset(_UNCOUNTED.split())
_HEAD_ENDS = re.compile(
    r" (with|without|of|on|in|at|and|behind|over|facing|showing|pointing|holding|for|under|falling|from|getting|"
    r"wearing|playing|savouring|blowing|screaming|throwing|fluttering|running|walking|but|wrestling|kissing|juggling|"
    r"lifting|hugging|exhaling|rolling)\b"
)
_TAKES_THE = re.compile(r"united|islands|republic|territor|netherlands|philippines|bahamas|maldives|seychelles|gambia")
_TAKES_AN = re.compile(r"(?!eu|one)[aeio]|u(?!ni)|hour|x-|(ng|sos|ab) ")


def _plain(text: str) -> str:
    """Lower case, plain ASCII letters: what a keyboard types without effort."""
    text = text.replace("’", "'").replace("&", "and")
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", re.sub(r"[().]", "", folded).replace(" - ", " ").lower()).strip()


def _count(words: list[str]) -> str:
    """`[man, boy, boy]` → `a man and two boys`."""
    plural = {"man": "men", "woman": "women", "child": "children"}
    parts = []
    for word in dict.fromkeys(words):
        many = words.count(word) > 1
        parts.append(f"two {plural.get(word, word + 's')}" if many else with_article(word))
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def name_of(entry: Entry, concept: str) -> str:
    """The one name of a concept, for example `red apple`, `flag of united states`, `clock showing one o'clock`."""
    if concept in NAMES:
        return NAMES[concept]
    name = _plain(entry["name"])
    if entry["subcategory"] in ("country-flag", "subdivision-flag"):
        return "flag of " + re.sub(r"^st ", "saint ", name.removesuffix(" flag"))
    if name.startswith("family: "):
        return "family with " + _count(name.removeprefix("family: ").split(", "))
    if entry["subcategory"] == "zodiac":
        return f"{name} zodiac sign"
    for pattern, replacement in _REWRITES:
        name = re.sub(pattern, replacement, name)
    return name.removesuffix(_FILLER.get(entry["subcategory"], "\n")).strip()


def aliases_of(entry: Entry, name: str) -> list[str]:
    """Other names of the same picture: the package's short names and its full name, where they help."""
    if name.startswith("flag of "):
        country = name.removeprefix("flag of ")
        return [f"{country} flag", *([f"flag of the {country}"] if _TAKES_THE.search(country) else [])]
    if entry["subcategory"] == "family" and "-" in entry["short_name"]:
        return []  # "man-heart-man"
    words = [_plain(short.replace("_", " ").replace("-", " ")) for short in entry["short_names"]]
    if name.endswith(" face") and entry["subcategory"].startswith(("animal", "face-costume")):
        words.append(name.removesuffix(" face"))  # "bear", where no whole bear has the name
    helpful = [w for w in words if w.split()[0] not in _UNHELPFUL_FIRST_WORDS and not re.search(r"[\d+]", w)]
    return [word for word in dict.fromkeys(helpful) if word.replace("-", " ") != name.replace("-", " ")]


def is_plural(name: str) -> bool:
    head = _head(name)
    return head in ("men", "women", "people") or (head.endswith("s") and not head.endswith(("ss", "us", "os")))


def with_article(name: str) -> str:
    """`red apple` → `a red apple`; plurals, mass nouns and proper names stay as they are."""
    if is_plural(name) or _head(name) in _UNCOUNTED_HEADS or name.startswith("keycap "):
        return name
    return ("an " if _TAKES_AN.match(name) else "a ") + name


def _head(name: str) -> str:
    """The noun: the last word before `with`, `of`, `running`, …"""
    return _HEAD_ENDS.split(name)[0].split()[-1]
