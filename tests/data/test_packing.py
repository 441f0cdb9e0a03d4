from itertools import combinations, islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.documents import Document, ImageRef, Turn, conversation_document, drawing_document, text_document
from data.mixture import Draw
from data.packing import best_fit, collate
from data.stream import RowStream


class Lengths:
    """A source whose documents have the given lengths; a length of 0 is an unusable sample."""

    name, stores = "lengths", ()

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def document(self, index, rng):
        if not self.lengths[index]:
            raise ValueError(f"sample {index} is empty")
        ids, mask = torch.full((self.lengths[index],), index), torch.zeros(self.lengths[index], dtype=torch.bool)
        return Document(ids, ids, mask, mask, (), str(index))


def stream(lengths, capacity, window, max_bad_share=1.0):
    draws = iter([Draw(0, index, 0) for index in range(len(lengths))])
    return RowStream([Lengths(lengths)], draws, capacity, window, seed=0, max_bad_share=max_bad_share)


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), capacity=st.integers(20, 60))
def test_best_fit_equals_brute_force(lengths, capacity):
    chosen = best_fit(lengths, capacity)
    assert chosen[0] == 0 and chosen == sorted(set(chosen))
    others = range(1, len(lengths))
    subsets = [(0, *subset) for size in range(len(lengths)) for subset in combinations(others, size)]
    sums = [sum(lengths[i] for i in subset) for subset in subsets]
    assert sum(lengths[i] for i in chosen) == max(total for total in sums if total <= capacity)


def test_among_equally_full_rows_the_oldest_documents_win():
    assert best_fit([4, 3, 3, 6, 3], 10) == [0, 1, 2]
    assert best_fit([10, 1], 10) == [0]


@given(
    lengths=st.lists(st.integers(1, 40), max_size=60),
    capacity=st.integers(10, 50),
    window=st.integers(1, 8),
)
def test_every_document_that_fits_is_packed_once_and_whole(lengths, capacity, window):
    rows = stream(lengths, capacity, window)
    packed = list(rows)
    assert all(sum(map(len, row)) <= capacity for row in packed)
    assert all(row == sorted(row, key=lambda document: int(document.key)) for row in packed)
    keys = [int(document.key) for row in packed for document in row]
    fitting = [index for index, length in enumerate(lengths) if length <= capacity]
    assert sorted(keys) == fitting
    assert rows.counters["overlong"] == len(lengths) - len(fitting)
    assert rows.counters["documents"] == len(fitting) and rows.counters["rows"] == len(packed)
    for row in packed:  # each takes the oldest, so that nobody waits longer than the window is wide
        taken = {int(document.key) for document in row}
        assert fitting[0] in taken
        fitting = [index for index in fitting if index not in taken]


@pytest.mark.parametrize("mean", [85, 92, 100])
def test_fill(mean):
    """Documents of 64 patches and a short text, as in configs/tiny."""
    rng = np.random.default_rng(0)
    rows = stream(rng.integers(mean - 12, mean + 16, size=3000).tolist(), 512, 64)
    packed = list(islice(rows, 400))  # the steady state, before the window runs empty
    assert rows.counters["drawn"] < 3000
    assert sum(len(document) for row in packed for document in row) / (512 * 400) >= 0.97


def test_unusable_samples_are_skipped_up_to_a_share(caplog):
    lengths = [5] * 300
    lengths[10] = lengths[200] = 0
    rows = stream(lengths, 20, 4, max_bad_share=0.01)
    assert sorted(int(d.key) for row in rows for d in row) == [i for i in range(300) if i not in (10, 200)]
    assert rows.counters["bad"] == 2 and "sample 200 is empty" in caplog.text
    lengths[20] = 0
    with pytest.raises(ValueError, match="2 of 21 samples are unusable, the last one: sample 20 is empty"):
        list(stream(lengths, 20, 4, max_bad_share=0.01))


def test_nothing_but_overlong_documents_is_an_error():
    with pytest.raises(ValueError, match="raise context_length"):
        next(stream([30] * 5000, 20, 4))


def test_collate_by_hand(vocabulary, make_store):
    store = make_store()
    drawing = drawing_document(vocabulary, ImageRef(store, 2), "red", "drawing")
    seen = conversation_document(
        vocabulary,
        [Turn("user", [ImageRef(store, 3), "a", ImageRef(store, 0)]), Turn("assistant", ["b"])],
        "seen",
    )
    text = text_document(vocabulary, "red apple", "text")
    length = len(drawing) + len(text) + 3
    batch = collate([[drawing, text], [], [seen]], max(length, len(seen)), vocabulary.endoftext, 6, 3)
    assert batch.keys == ["drawing", "text", "seen"]
    for codes, branch in ((batch.pixel, 0), (batch.semantic, 1)):
        assert codes.dtype == torch.int64 and codes.shape == (3, 6, 3)
        expected = np.stack([store.codes(index)[branch] for index in (2, 3, 0)])
        np.testing.assert_array_equal(codes, expected)
    fills = {"input_ids": vocabulary.endoftext, "labels": -100, "image_mask": False, "target_mask": False}
    for row, documents in enumerate([[drawing, text], [], [seen]]):
        padding = batch.input_ids.shape[1] - sum(map(len, documents))
        for name, fill in fills.items():
            values = [value for document in documents for value in getattr(document, name).tolist()]
            assert getattr(batch, name)[row].tolist() == values + [fill] * padding
        lengths = [*map(len, documents), padding]
        assert batch.position_ids[row].tolist() == [i for length in lengths for i in range(length)]
    assert batch.image_mask.sum() == 3 * 6 and batch.target_mask.sum() == 6
    assert batch.num_targets == sum(document.num_targets for document in (drawing, text, seen))


def test_a_batch_without_images_has_none(vocabulary):
    batch = collate([[text_document(vocabulary, "red", "k")]], 8, vocabulary.endoftext, 6, 3)
    assert batch.pixel.shape == batch.semantic.shape == (0, 6, 3)
    assert batch.to("cpu").keys == ["k"]
