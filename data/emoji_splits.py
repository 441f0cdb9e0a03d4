"""Which emoji pictures are trained on: a split by concept that needs no list (DESIGN.md §5).

5 % of the concepts are never seen (all tones, both styles); of a further 10 % that exist in both styles one style is
never seen. The decision is a hash of the concept, so it stays the same when pictures are added or dropped.
"""

import hashlib

SPLITS = ("train", "unseen_concept", "unseen_style")
STYLES = ("flat", "3d")
UNSEEN_CONCEPT_SHARE = 0.05
UNSEEN_STYLE_SHARE = 0.10

# An emoji of a person comes as man, woman and neutral adult, and some as a mirrored copy. These are near copies of one
# drawing, so they are held out together: otherwise "unseen" would mean "seen with another haircut".
_PEOPLE = {"1f468": "adult", "1f469": "adult", "1f9d1": "adult", "1f466": "child", "1f467": "child", "1f9d2": "child"}
_MODIFIERS = ("2640", "2642", "27a1", "200d")


def split_group(concept: str) -> str:
    """`1f469-200d-1f680` (woman astronaut) and `1f9d1-200d-1f680` (astronaut) → `adult-1f680`."""
    parts = [_PEOPLE.get(code, code) for code in concept.split("-")]
    return "-".join([parts[0], *(part for part in parts[1:] if part not in _MODIFIERS)])


def fraction_of(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def split_of(concept: str, style: str, has_both_styles: bool) -> str:
    group = split_group(concept)
    draw = fraction_of(f"split {group}")
    if draw < UNSEEN_CONCEPT_SHARE:
        return "unseen_concept"
    held_out_style = STYLES[fraction_of(f"style {group}") < 0.5]
    if has_both_styles and draw < UNSEEN_CONCEPT_SHARE + UNSEEN_STYLE_SHARE and style == held_out_style:
        return "unseen_style"
    return "train"


def image_id_of(key: str) -> int:
    """A positive integer of at most nine digits, as stable as the key."""
    return 1 + int(fraction_of(f"image {key}") * 999_999_999)
