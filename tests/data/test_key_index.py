"""The index of keys finds every key, and no other, whatever the strings and even if all hashes collide."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import key_index
from data.key_index import KeyIndex, hash_strings

KEYS = st.lists(st.text(max_size=12), min_size=1, max_size=30, unique=True)


@given(KEYS, st.integers(1, 7))
def test_every_key_is_found_in_its_row(keys: list[str], piece: int):
    whole = pa.array(keys)
    index = KeyIndex(whole.slice(start, piece) for start in range(0, len(keys), piece))
    assert [index.candidates(key) for key in keys] == [[row] for row in range(len(keys))]
    assert index.candidates("no such key, being longer") == [] and index.suspects() == []


def test_keys_that_occur_twice_are_suspects():
    assert KeyIndex([pa.array(["b", "a", "b"]), pa.array(["c", "b"])]).suspects() == [[0, 2, 4]]


def test_colliding_hashes_propose_all_their_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_index, "_WEIGHTS", np.zeros(4, np.uint64))
    assert sorted(KeyIndex([pa.array(["a", "b", "cc"])]).candidates("b")) == [0, 1, 2]


def test_place_and_length_of_a_byte_matter():
    hashes = hash_strings(pa.array(["ab", "ba", "a", "a\0", "", "ä" * 2000, "ä" * 1999]))
    assert len(set(hashes.tolist())) == len(hashes)
