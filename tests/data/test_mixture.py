from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.mixture import Mixture


@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=4), seed=st.integers(0, 5))
def test_every_prefix_holds_the_shares(weights, seed):
    mixture = Mixture([7] * len(weights), weights, seed)
    for total, _ in enumerate(islice(mixture, 100), start=1):
        for weight, count in zip(weights, mixture.counts, strict=True):
            share = weight / sum(weights)
            # A source may fall behind while others catch up, so the bound is the number of sources.
            assert abs(count - share * total) <= len(weights)


def test_equal_weights_alternate_and_a_zero_weight_is_silent():
    mixture = Mixture([3, 3, 3], [1, 0, 1], 0)
    assert [draw.source for draw in islice(mixture, 6)] == [0, 2, 0, 2, 0, 2]


def test_an_epoch_sees_every_document_once():
    mixture = Mixture([5, 8], [1, 3], seed=1)
    draws = list(islice(mixture, 64))
    for source, size in ((0, 5), (1, 8)):
        mine = [draw for draw in draws if draw.source == source]
        assert [draw.count for draw in mine] == list(range(len(mine)))
        epochs = [[d.index for d in mine[i : i + size]] for i in range(0, len(mine) - size + 1, size)]
        assert len(epochs) >= 3 and all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert epochs[0] != epochs[1]
    assert mixture.epochs == [16 / 5, 48 / 8]


def test_the_counts_are_the_whole_state():
    whole = list(islice(Mixture([5, 8, 2], [0.2, 0.5, 0.3], 3), 50))
    for cut in range(50):
        first = Mixture([5, 8, 2], [0.2, 0.5, 0.3], 3)
        assert list(islice(first, cut)) == whole[:cut]
        second = Mixture([5, 8, 2], [0.2, 0.5, 0.3], 3)
        second.counts = list(first.counts)
        assert list(islice(second, 50 - cut)) == whole[cut:]


def test_the_seed_decides_the_order():
    orders = {tuple(draw.index for draw in islice(Mixture([20], [1], seed), 20)) for seed in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize("weights", [[0.0], [0.0, 0.0], [1.0, -1.0], [2.0, -1.0]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="positive weight"):
        Mixture([1] * len(weights), weights, 0)
