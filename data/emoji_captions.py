"""Captions of the emoji pictures: the conditioning of text to image and the texts of the small SigLIP.

The first caption is canonical, `red apple, 3d style` or `waving hand, medium skin tone, flat style`; the others say the
same in other words. Every one names the style, the subject and, where there is one, the skin tone.
"""

from data.emoji_names import with_article

TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}


def describe_tones(codes: list[str]) -> str | None:
    """`[1f3fd]` → `medium`; two different tones → `medium and light`, in the order of the two people."""
    tones = list(dict.fromkeys(TONES[code] for code in codes))
    return " and ".join(tones) or None


def tone_phrase(skin_tone: str | None) -> str:
    """`medium` → `medium skin tone`; `medium and light` → `medium and light skin tones`; None → ``."""
    return "" if skin_tone is None else f"{skin_tone} skin tone" + ("s" if " and " in skin_tone else "")


def captions_of(name: str, aliases: list[str], style: str, skin_tone: str | None) -> list[str]:
    """All phrasings, the canonical one first, without repetitions."""
    tone = tone_phrase(skin_tone)
    comma, with_tone = (f", {tone}", f" with {tone}") if tone else ("", "")
    if " with " in name:  # "woman with veil with dark skin tone" would read as the veil's
        with_tone = comma
    counted = with_article(name)
    phrasings = [
        f"{name}{comma}, {style} style",
        f"{counted}{comma}, {style} style",
        f"a {style} emoji of {counted}{with_tone}",
        f"{style} style {name}{comma}",
        f"{counted}{with_tone} in {style} style",
        *(f"{alias}{comma}, {style} style" for alias in aliases),
        *(f"a {style} emoji of {with_article(alias)}{with_tone}" for alias in aliases[:1]),
    ]
    return list(dict.fromkeys(phrasings))
