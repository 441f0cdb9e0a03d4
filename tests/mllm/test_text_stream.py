import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.vocabulary import Vocabulary
from mllm.text_stream import TextStream

VOCABULARY = Vocabulary.train(["a red apple", "größer"], 310)


def pieces(ids: list[int]) -> list[str]:
    stream = TextStream(VOCABULARY)
    return [*map(stream.push, ids), stream.rest()]


@given(st.text())
def test_pieces_add_up_to_the_text(text):
    assert "".join(pieces(VOCABULARY.encode(text))) == VOCABULARY.decode(VOCABULARY.encode(text))


@given(st.lists(st.integers(0, len(VOCABULARY) - 1)))
def test_pieces_of_any_tokens_add_up_to_what_they_decode_to(ids):
    """A model may say bytes that are no text."""
    assert "".join(pieces(ids)) == VOCABULARY.decode(ids)


@pytest.mark.parametrize("character", ["é", "中", "🍎"])
def test_half_a_character_is_never_shown(character):
    shown = pieces(VOCABULARY.encode(character))
    assert [piece for piece in shown if piece] == [character]
