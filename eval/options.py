"""Reading the chosen option out of an answer to a multiple-choice question, by static rules (MMBench, paper Tab. 5).

In this order, the first that applies decides; where none does, no option is read, and none is ever guessed:

1. The whole answer is one option's letter, in either case, bare or as in `(B)`, `B.`, `B)`, `B:`.
2. It opens with such a marked upper-case letter and no other option's letter stands alone after it, or what follows is
   that option's own text: `B. a dog`, `(B) a dog`.
3. The whole answer is the text of exactly one option; case, surrounding spaces and a final period do not matter.
4. Exactly one option's letter stands alone in upper case somewhere: `The answer is B`. An `A` that a word follows may
   be the article: it is not read as an option, nor is another letter beside it.

Upstream tools agree on 1 and 2 and differ on the rest; some also search for an option's text inside the answer, ask a
language model, or draw at random.
"""

import re
from collections.abc import Mapping

_MARKED = re.compile(r"[(\[]?([A-Za-z])[)\].:]*")
_OPENING = re.compile(r"(?:[(\[]([A-Z])[)\]][.:]?|([A-Z])[).:])\s+(?=\S)")
_ALONE = re.compile(r"(?<![^\W_])([A-Z])(?![^\W_])(?!')")
_ARTICLE = re.compile(r"\bA (?=[^\W\d_])")


def extract_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that `answer` names, or None. `options` are the texts by letter."""
    answer = answer.strip()
    whole = _MARKED.fullmatch(answer)
    if whole and whole[1].upper() in options:
        return whole[1].upper()
    opening = _OPENING.match(answer)
    if opening and (letter := opening[1] or opening[2]) in options:
        rest = answer[opening.end() :]
        is_own_text = _plain(rest) == _plain(options[letter])
        return letter if is_own_text or not _letters_alone(_ARTICLE.sub("", rest), options) - {letter} else None
    same_text = [letter for letter, text in options.items() if answer and _plain(text) == _plain(answer)]
    if len(same_text) == 1:
        return same_text[0]
    alone = _letters_alone(answer, options)
    return alone.pop() if len(alone) == 1 and not _ARTICLE.search(answer) else None


def _letters_alone(text: str, options: Mapping[str, str]) -> set[str]:
    return {letter for letter in _ALONE.findall(text) if letter in options}


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").casefold()
