"""Text while it is spelt: a byte-level token may end within a character, which is shown once it is whole."""

from data.vocabulary import Vocabulary

HALF = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """All pieces together, with the rest, are what `vocabulary.decode` makes of all tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids: list[int] = []
        self._shown = ""

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    def push(self, token: int) -> str:
        """The new characters that are whole."""
        self._ids.append(token)
        text = self.vocabulary.decode(self._ids)
        return self._show(text.rstrip(HALF))

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._show(self.vocabulary.decode(self._ids))

    def _show(self, text: str) -> str:
        piece = text[len(self._shown) :]
        self._shown += piece
        return piece
