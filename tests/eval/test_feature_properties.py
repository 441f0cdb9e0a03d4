"""What holds of zero-shot, retrieval, FID and CLIPScore whatever the features: order, scale, duplicates, bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import clipscore, mjhq
from eval.frechet import Moments, frechet_distance
from eval.ranking import normalise, ranks
from eval.retrieval import recall, texts_of_images
from eval.zero_shot import accuracy, class_features

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 7), st.integers(2, 5))  # of one side, and how many features there are
CHECKS = settings(max_examples=40, deadline=None)


@CHECKS
@given(SEEDS, SIZES, st.integers(1, 4))
def test_zero_shot(seed, sizes, num_classes):
    rng = np.random.default_rng(seed)
    num, width = sizes
    images, labels = rng.standard_normal((num, width)), rng.integers(num_classes, size=num)
    texts, owners = normalise(rng.standard_normal((2 * num_classes, width))), np.repeat(np.arange(num_classes), 2)
    classes = class_features(texts, owners, num_classes)
    top = [accuracy(normalise(images), classes, labels, k) for k in (1, 2, 5)]
    assert 0 <= top[0] <= top[1] <= top[2] == 1  # there are fewer than five classes
    order, renamed = rng.permutation(num), rng.permutation(num_classes)
    shuffled = rng.permutation(len(texts))
    same_classes = class_features(texts[shuffled], owners[shuffled], num_classes)
    for value in (
        accuracy(normalise(images[order]), classes, labels[order]),
        accuracy(normalise(np.tile(images, (2, 1))), classes, np.tile(labels, 2)),
        accuracy(normalise(7 * images), classes, labels),
        accuracy(normalise(images), classes[renamed], np.argsort(renamed)[labels]),
        accuracy(normalise(images), same_classes, labels),
    ):
        assert value == pytest.approx(top[0])


def by_sorting(images, texts, owners, k):
    """Recall@k as one writes it down: sort all, look for what belongs to the query among the first k."""
    products = images @ texts.T
    of_texts = [owners[t] in np.argsort(-products[:, t], kind="stable")[:k] for t in range(len(texts))]
    of_images = [i in owners[np.argsort(-products[i], kind="stable")[:k]] for i in range(len(images))]
    return {"text_to_image": np.mean(of_texts), "image_to_text": np.mean(of_images)}


@CHECKS
@given(SEEDS, SIZES, st.integers(1, 12), st.booleans())
def test_retrieval(seed, sizes, num_texts, ties):
    rng = np.random.default_rng(seed)
    num, width = sizes
    shape_i, shape_t = (num, width), (num_texts, width)
    # Small whole numbers have many equal products, and exact ones.
    images, texts = ((rng.integers(-1, 2, size=shape).astype(float) if ties else normalise(rng.standard_normal(shape)))
                     for shape in (shape_i, shape_t))  # fmt: skip
    owners = rng.integers(num, size=num_texts)
    result = recall(images, texts, owners, ks=(1, 2, 3))
    for way, figures in result.items():
        values = list(figures.values())
        assert values == sorted(values) and values[0] >= 0 and values[-1] <= 1
        for k, value in enumerate(values, start=1):
            assert value == pytest.approx(by_sorting(images, texts, owners, k)[way])
    if ties:
        return  # of equals the first comes first, so there order does matter
    twice = recall(images, np.tile(texts, (2, 1)), np.tile(owners, 2), ks=(1, 2, 3))  # copies crowd each other out of K
    assert twice["text_to_image"] == pytest.approx(result["text_to_image"])
    order, renamed = rng.permutation(num_texts), rng.permutation(num)
    assert recall(images, texts[order], owners[order], ks=(1, 2, 3)) == result
    assert recall(images[renamed], texts, np.argsort(renamed)[owners], ks=(1, 2, 3)) == result


def test_many_queries_at_a_time_rank_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    images, texts = normalise(rng.standard_normal((9, 3))), normalise(rng.standard_normal((20, 3)))
    own = texts_of_images(np.arange(20) % 9, 9)
    whole = ranks(images, texts, own)
    monkeypatch.setattr("eval.ranking._CHUNK", 20)
    np.testing.assert_array_equal(ranks(images, texts, own), whole)


@CHECKS
@given(SEEDS, st.integers(2, 30), st.integers(2, 30), st.integers(1, 5))
def test_fid(seed, num, num_other, width):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((num, width)), 2 * rng.standard_normal((num_other, width)) + 1
    a, b = Moments.of(first), Moments.of(second)
    distance = frechet_distance(a, b)
    shift = a.mean - b.mean
    assert distance >= shift @ shift - 1e-8  # what the covariances add is no less than nothing
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-6)
    shuffled = Moments.of(first[rng.permutation(num)]), Moments.of(second[rng.permutation(num_other)])
    assert frechet_distance(*shuffled) == pytest.approx(distance, abs=1e-6)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    assert frechet_distance(Moments.of(first @ turn), Moments.of(second @ turn)) == pytest.approx(distance, abs=1e-6)
    assert frechet_distance(Moments.of(3 * first), Moments.of(3 * second)) == pytest.approx(9 * distance, abs=1e-5)


@CHECKS
@given(SEEDS, st.integers(4, 12))
def test_mjhq_is_the_fid_of_all_and_of_each_category_in_any_order(seed, num):
    rng = np.random.default_rng(seed)
    sides = [{name: rng.standard_normal((num, 3)) for name in ("art", "food", "logo")} for _ in range(2)]
    result = mjhq.score(*sides)
    whole = [Moments.of(np.concatenate(list(side.values()))) for side in sides]
    assert result["fid"] == pytest.approx(frechet_distance(*whole), abs=1e-8)
    turned = [dict(reversed([(name, part[::-1]) for name, part in side.items()])) for side in sides]
    assert mjhq.score(*turned)["per_category"] == pytest.approx(result["per_category"], abs=1e-8)


@CHECKS
@given(SEEDS, SIZES)
def test_clipscore(tmp_path_factory, seed, sizes):
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal(sizes), rng.standard_normal(sizes)
    path = tmp_path_factory.mktemp("clipscore") / "f.npz"

    def scored(images, texts):
        np.savez(path, image=images, text=texts, backbone="any")
        return clipscore.run(type("Arguments", (), {"features": str(path), "backbone": None}))["clipscore"]

    expected = scored(images, texts)
    order = rng.permutation(len(images))
    assert 0 <= expected <= 2.5 + 1e-6
    assert scored(images[order], 5 * texts[order]) == pytest.approx(expected)
    assert scored(np.tile(images, (2, 1)), np.tile(texts, (2, 1))) == pytest.approx(expected)
    assert scored(images, images) == pytest.approx(2.5)
