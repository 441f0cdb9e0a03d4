from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.mixture import Mixture


@settings(deadline=None)  # a busy machine is no defect
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


def test_a_source_that_has_run_out_leaves_its_share_to_the_others():
    mixture = Mixture([4, 6, 5], [2, 1, 1], 0, epochs=[2, 0, 1])
    draws = list(islice(mixture, 80))
    counts = [sum(draw.source == source for draw in draws) for source in range(3)]
    assert counts == [8, 67, 5]
    assert [draw.source for draw in draws[-60:]] == [1] * 60
    both = [draw.source for draw in islice(Mixture([4, 100, 100], [2, 1, 3], 0, epochs=[1, 0, 0]), 112)]
    after = both[-100:]  # the first 12 draws emptied the first source
    assert both.count(0) == 4 and after.count(0) == 0 and abs(after.count(2) - 75) <= 1


def test_the_stream_ends_with_the_last_source():
    draws = list(Mixture([3, 2], [1, 5], 1, epochs=[2, 3]))
    expected = [(0, i) for i in range(3)] * 2 + [(1, i) for i in range(2)] * 3
    assert sorted((draw.source, draw.index) for draw in draws) == sorted(expected)
    silent = Mixture([3, 2], [1, 0], 1, epochs=[1, 0])  # what has no weight keeps nothing alive
    assert len(list(silent)) == 3


def test_the_state_holds_across_the_end_of_a_source():
    def fresh() -> Mixture:
        return Mixture([5, 8, 2], [0.2, 0.5, 0.3], 3, epochs=[1, 2, 3])

    whole = list(fresh())
    assert len(whole) == 5 + 16 + 6
    for cut in range(len(whole)):
        first, second = fresh(), fresh()
        assert list(islice(first, cut)) == whole[:cut]
        second.load_state_dict(first.state_dict())
        assert list(second) == whole[cut:]
