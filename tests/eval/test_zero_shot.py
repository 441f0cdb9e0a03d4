"""Zero-shot arithmetic on features made by hand."""

import numpy as np
import pytest

from eval.ranking import normalise
from eval.retrieval import recall, retrieval_at_1
from eval.zero_shot import accuracy, class_features


def test_a_class_is_the_normalised_mean_of_its_normalised_texts():
    texts = normalise(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    classes = class_features(texts, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(classes, np.array([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))


def test_accuracy_counts_by_hand():
    images = np.array([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.9, 0.1, 0.2]])
    labels = np.array([0, 0, 1])  # nearest; second nearest; third nearest
    assert [accuracy(images, np.eye(3), labels, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert accuracy(images, np.eye(3), labels, k=5) == 1  # more than there are classes


def test_retrieval_of_pairs_counts_by_hand():
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.9]])
    figures = retrieval_at_1(images, texts)
    assert figures["image_to_text"] == pytest.approx(2 / 3)  # the third image prefers the first text
    assert figures["text_to_image"] == pytest.approx(2 / 3)  # the third text prefers the second image


def test_recall_with_several_texts_an_image():
    images = np.eye(3)
    texts = np.array([[3.0, 2, 1], [2, 3, 1], [1, 3, 2], [1, 2, 3], [3, 1, 2], [2, 1, 0]])
    owners = np.array([0, 0, 1, 1, 2, 2])
    figures = recall(images, texts, owners, ks=(1, 2, 3))
    # Texts: their own image is 1st, 2nd, 1st, 2nd, 2nd, 3rd nearest.
    assert figures["text_to_image"] == pytest.approx({"recall@1": 2 / 6, "recall@2": 5 / 6, "recall@3": 1})
    # Image 2's texts stand at 2 and 0 on its axis, behind text 3 (3) and tied with text 2: at 3 for sure.
    assert figures["image_to_text"]["recall@3"] == 1
    assert recall(images[:2], texts[:2], owners[:2] * 0 + 1)["image_to_text"]["recall@10"] == 0.5  # image 0 has none


def test_features_that_say_nothing_do_not_score():
    same = np.ones((100, 4))
    assert recall(same, same, np.arange(100))["text_to_image"]["recall@10"] == pytest.approx(0.1)  # chance
