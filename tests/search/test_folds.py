"""Held-out probabilities against scikit-learn's regression, and that no image judges itself."""

import numpy as np
import pytest

from mindghost.search import folds


def clusters(seed: int, images: int = 240, classes: int = 4, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a direction for each class, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    vectors = 2 * rng.normal(size=(classes, width))[labels] + rng.normal(size=(images, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_images_of_each_class_are_dealt_evenly():
    labels = np.array([0] * 11 + [1] * 3 + [2] * 2)
    place = folds.dealt(labels, 5, 7)
    for label, most in ((0, 3), (1, 1), (2, 1)):
        assert np.bincount(place[labels == label], minlength=5).max() == most
    assert (np.bincount(place, minlength=5) <= 4).all()
    assert (folds.dealt(labels, 5, 8) != place).any()


def test_the_regression_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors, labels = clusters(3)
    weights = folds.fitted(vectors, labels, 4)
    # Its C weighs the sum of the losses.
    theirs = linear_model.LogisticRegression(C=1 / (folds.PENALTY * len(labels)), max_iter=2000, tol=1e-8)
    expected = theirs.fit(vectors, labels).predict_proba(vectors)
    found = folds.probabilities(vectors @ weights[:-1] + weights[-1])
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_an_images_own_label_says_nothing_of_it():
    vectors, labels = clusters(5)
    found = folds.held_out(vectors, labels, 4, 4, 1)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    place = folds.dealt(labels, 4, 1)
    for fold in range(4):
        held = place == fold
        scale = folds._Scale(vectors[~held])
        weights = folds.fitted(scale(vectors[~held]), labels[~held], 4)
        expected = folds.probabilities(scale(vectors[held]) @ weights[:-1] + weights[-1])
        np.testing.assert_allclose(found[held], expected, atol=1e-4)
    assert (found.argmax(axis=1) == labels).mean() > 0.9


def test_blocks_change_nothing(monkeypatch):
    vectors, labels = clusters(6)
    whole = folds.held_out(vectors, labels, 4, 3)
    monkeypatch.setattr(folds, "_BLOCK", 500)
    np.testing.assert_allclose(folds.held_out(vectors, labels, 4, 3), whole, atol=1e-3)


def test_equal_vectors_give_equal_shares():
    labels = np.array([0, 1] * 10)
    found = folds.held_out(np.ones((20, 3), np.float16), labels, 2, 5)
    np.testing.assert_allclose(found, 0.5, atol=0.06)
