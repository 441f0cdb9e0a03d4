"""Questions about emoji pictures, made from their metadata.

There are six kinds: subject, category, style, skin tone, colour and number of people. Every kind has one open wording,
one yes/no wording and one set of wrong answers, so that a small language model trained from nothing can learn them, and
all four benchmarks and the training conversations ask in the same words.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from data.emoji_captions import TONES
from data.emoji_names import is_plural, with_article
from data.emoji_splits import STYLES, split_group

Metadata = dict[str, Any]
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "pink")
COUNTS = {"one": "1", "two": "2", "three": "3", "four": "4"}
NUM_POPULAR = 100
_MAX_DRAWS = 1000

_PEOPLE = ("1f468", "1f469", "1f9d1", "1f466", "1f467", "1f9d2")
_OPEN = {
    "subject": "What is in the image?",
    "category": "What is the image about?",
    "style": "What is the style of the image?",
    "skin_tone": "What is the skin tone?",
    "count": "How many people are in the image?",
}
_NEVER_TRUE_STYLES = ("photo", "sketch")  # fill up the four options of a choice


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    also_right: tuple[str, ...] = ()

    @property
    def answer_type(self) -> str:
        """As VQAv2 groups its answers."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isdigit() else "other"


@dataclass(frozen=True)
class Choice:
    kind: str
    text: str
    options: tuple[str, ...]
    answer: int
    """Index of the right option."""

    def rotated(self, by: int) -> "Choice":
        """The same question with every option `by` places earlier."""
        options = self.options[by:] + self.options[:by]
        return Choice(self.kind, self.text, options, (self.answer - by) % 4)


def truth(kind: str, metadata: Metadata) -> str | None:
    """The right answer to the open question of this kind; None if the picture has none."""
    match kind:
        case "subject":
            return metadata["name"]
        case "category":
            return metadata["category"].replace("&", "and").lower()
        case "style":
            return metadata["style"]
        case "skin_tone":
            return metadata["skin_tone"] if metadata["skin_tone"] in TONES.values() else None
        case "color":
            first, *rest = metadata["name"].split()
            return first if first in COLORS and rest else None
        case "count":
            return _num_people(metadata)
    raise ValueError(f"there is no kind of question called {kind!r}")


def _num_people(metadata: Metadata) -> str | None:
    if metadata["subcategory"] == "family":
        people = sum(part in _PEOPLE for part in metadata["concept"].split("-"))
        return str(people or 2)  # the couples with a code point of their own
    # The many single people at work and at sport are left out: "one" would nearly always be right.
    return "1" if metadata["subcategory"] == "person" else None


class QuestionMaker:
    """Asks about pictures; wrong answers come from what the training pictures show."""

    KINDS = ("subject", "category", "style", "skin_tone", "color", "count")

    def __init__(self, training: Iterable[Metadata]) -> None:
        training = list(training)
        names = Counter(metadata["name"] for metadata in training)
        self.names = sorted(names)
        self.frequent_names = [metadata["name"] for metadata in training]
        self.popular = sorted(names, key=lambda name: (-names[name], name))[:NUM_POPULAR]
        self.shown = {metadata["name"]: metadata for metadata in training}
        self.frequent_categories = [str(truth("category", metadata)) for metadata in training]
        self.categories = sorted(set(self.frequent_categories))
        self.groups: dict[str, list[str]] = defaultdict(list)
        """Category or subcategory → the names of its training pictures, repeated as they are."""
        for metadata in training:
            self.groups[metadata["category"]].append(metadata["name"])
            self.groups[metadata["subcategory"]].append(metadata["name"])

    def kinds(self, metadata: Metadata) -> list[str]:
        """The kinds of question that this picture answers."""
        return [kind for kind in self.KINDS if truth(kind, metadata) is not None]

    def open(self, kind: str, metadata: Metadata) -> Question:
        answer = str(truth(kind, metadata))
        if kind == "color":
            return Question(kind, f"What color is the {metadata['name'].split(' ', 1)[1]}?", answer)
        return Question(kind, _OPEN[kind], answer, tuple(metadata["aliases"]) if kind == "subject" else ())

    def yes(self, kind: str, metadata: Metadata) -> Question:
        return Question(kind, _yes_no_text(kind, str(truth(kind, metadata)), metadata), "yes")

    def no(self, kind: str, metadata: Metadata, rng: random.Random, negatives: str = "mixed") -> Question:
        """`negatives` (subjects only): `random`, `popular`, `adversarial` (same subcategory), or `mixed`."""
        return Question(kind, _yes_no_text(kind, self.wrong(kind, metadata, rng, 1, negatives)[0], metadata), "no")

    def choice(self, kind: str, metadata: Metadata, rng: random.Random) -> Choice:
        options = [str(truth(kind, metadata)), *self.wrong(kind, metadata, rng, 3)]
        order = rng.sample(range(4), 4)
        return Choice(kind, self.open(kind, metadata).text, tuple(options[i] for i in order), order.index(0))

    def wrong(self, kind: str, metadata: Metadata, rng: random.Random, num: int, negatives: str = "mixed") -> list[str]:
        """`num` different wrong answers."""
        right = truth(kind, metadata)
        if kind == "subject":
            return self._wrong_subjects(metadata, rng, num, negatives)
        if kind == "category" and num == 1:
            return [rng.choice([value for value in self.frequent_categories if value != right])]
        values = {
            "category": self.categories,
            "style": STYLES if num == 1 else (*STYLES, *_NEVER_TRUE_STYLES),
            "skin_tone": TONES.values(),
            "color": COLORS,
            "count": COUNTS.values(),
        }[kind]
        return rng.sample([value for value in values if value != right], num)

    def _wrong_subjects(self, metadata: Metadata, rng: random.Random, num: int, negatives: str) -> list[str]:
        wrong: list[str] = []
        for _ in range(_MAX_DRAWS):
            candidate = rng.choice(self._names_like(metadata, rng, negatives))
            if candidate not in wrong and not _may_be_seen(self.shown[candidate], metadata):
                wrong.append(candidate)
            if len(wrong) == num:
                return wrong
        raise ValueError(f"the training pictures show too few other subjects to ask about {metadata['name']}")

    def _names_like(self, metadata: Metadata, rng: random.Random, negatives: str) -> list[str]:
        """Subjects to draw a wrong one from. In the mix one in four is of the same subcategory, one of the category.

        In the mix and in `adversarial`, names come as often as their pictures: a subject asked for is then as often
        there as not, and the name alone does not give the answer away.
        """
        if negatives == "mixed":
            negatives = rng.choice(["any", "any", "category", "adversarial"])
        if negatives in ("random", "popular"):
            return self.names if negatives == "random" else self.popular
        everything = self.frequent_names
        if negatives == "any":
            return everything
        names = self.groups.get(metadata["category" if negatives == "category" else "subcategory"], [])
        usable = (name for name in dict.fromkeys(names) if not _may_be_seen(self.shown[name], metadata))
        return names if len(list(islice(usable, 4))) == 4 else everything


def _may_be_seen(other: Metadata, metadata: Metadata) -> bool:
    """Whether "no" would be a doubtful answer to the question for `other` in this picture.

    A man running is a person running, a cat face is a cat, and a firefighter is a person with a nose.
    """
    words, other_words = set(metadata["name"].split()), set(other["name"].split())
    if words <= other_words or other_words <= words:
        return True
    if split_group(other["concept"]) == split_group(metadata["concept"]):
        return True
    if metadata["category"] not in ("People & Body", "Smileys & Emotion"):
        return False
    part_of_it = other["subcategory"] == "body-parts" != metadata["subcategory"]
    return part_of_it or other["name"] in ("person", "man", "woman", "child")


def _yes_no_text(kind: str, value: str, metadata: Metadata) -> str:
    match kind:
        case "subject":
            return f"{'Are' if is_plural(value) else 'Is'} there {with_article(value)} in the image?"
        case "category":
            return f"Is the image about {value}?"
        case "style":
            return f"Is the image in {value} style?"
        case "skin_tone":
            return f"Is the skin tone {value}?"
        case "color":
            return f"Is the {metadata['name'].split(' ', 1)[1]} {value}?"
        case "count":
            word = next(word for word, digits in COUNTS.items() if digits == value)
            return "Is there one person in the image?" if word == "one" else f"Are there {word} people in the image?"
    raise ValueError(f"there is no kind of question called {kind!r}")
