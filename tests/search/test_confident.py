"""Confident learning against values that were worked out by hand, and against cleanlab."""

import numpy as np
import pytest

from mindghost.search import confident

# Means of the labels' own probabilities: 0.6 of the first three, 0.7 of the last two.
LABELS = np.array([0, 0, 0, 1, 1])
FOUND = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.5, 0.5]])


def test_a_joint_by_hand():
    # The last image is sure to be of none: 0.5 is below both means.
    assert confident.confident_joint(LABELS, FOUND).tolist() == [[2, 1], [0, 1]]


def test_an_estimate_by_hand():
    assert confident.estimated(np.array([[2, 1], [0, 1]]), LABELS).tolist() == [[2, 1], [0, 2]]
    # 4 / 3 and 8 / 3 of four images: the larger fraction gets what is left.
    assert confident.estimated(np.array([[1, 2], [0, 1]]), np.array([0, 0, 0, 0, 1])).tolist() == [[1, 3], [0, 1]]


def test_suspects_and_scores_by_hand():
    assert confident.suspects(LABELS, FOUND).tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(confident.self_confidence(LABELS, FOUND), [0.9, 0.7, 0.2, 0.9, 0.5])
    np.testing.assert_allclose(confident.normalized_margin(LABELS, FOUND), [0.9, 0.7, 0.2, 0.9, 0.5])
    three = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    np.testing.assert_allclose(confident.normalized_margin(np.array([0, 2]), three), [0.6, 0.35])
    assert confident.probable(np.array([0, 2]), three).tolist() == [1, 1]


def test_of_several_sure_classes_the_likeliest_counts():
    labels = np.array([0, 1, 2, 0])
    found = np.array([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7], [0.35, 0.55, 0.1]])
    # Means 0.375, 0.4 and 0.7: the last image is surely of class 1 alone, the first of 0.
    assert confident.confident_joint(labels, found).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_class_without_images_gets_none():
    found = np.array([[0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    joint = confident.confident_joint(np.array([0, 1]), found)
    # Without a threshold of its own, the third class cannot be a sure one; its 1 is that of every class.
    assert joint.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def planted(seed: int, images: int = 600, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Given labels, probabilities, and which labels were flipped."""
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=images)
    flipped = np.zeros(images, bool)
    flipped[rng.choice(images, images // 20, replace=False)] = True
    given = np.where(flipped, (true + rng.integers(1, classes, images)) % classes, true)
    logits = rng.normal(size=(images, classes)) + 5 * np.eye(classes)[true]
    found = np.exp(logits)
    return given, found / found.sum(axis=1, keepdims=True), flipped


@pytest.mark.parametrize("seed", range(5))
def test_planted_flips_are_suspects(seed):
    given, found, flipped = planted(seed)
    suspects = confident.suspects(given, found)
    assert (suspects & flipped).sum() >= 0.9 * flipped.sum()
    assert suspects.sum() <= 1.5 * flipped.sum()
    for score in confident.SCORES.values():
        first = np.argsort(score(given, found), kind="stable")[: round(0.06 * len(given))]
        assert flipped[first].sum() >= 0.9 * flipped.sum()


# What cleanlab 2.9.0 makes of `planted(seed, 100, 4)`: compute_confident_joint(calibrate=True), and the indices of
# find_label_issues(filter_by="prune_by_noise_rate").
CLEANLAB = {
    0: ([[16, 1, 0, 0], [1, 23, 0, 0], [1, 0, 34, 0], [1, 0, 0, 23]], [23, 31, 38, 76]),
    1: ([[20, 1, 0, 0], [0, 27, 0, 0], [0, 1, 20, 1], [0, 1, 1, 28]], [6, 66, 74, 77, 87]),
    2: ([[20, 0, 1, 0], [0, 29, 1, 2], [0, 0, 25, 0], [0, 0, 0, 22]], [26, 45, 50, 56]),
    3: ([[22, 1, 1, 0], [2, 24, 0, 0], [0, 0, 26, 0], [0, 1, 0, 23]], [14, 21, 37, 46, 86]),
    4: ([[22, 0, 0, 1], [0, 25, 0, 0], [0, 0, 23, 1], [0, 1, 0, 27]], [29, 51, 71]),
}


@pytest.mark.parametrize("seed", CLEANLAB)
def test_as_cleanlab(seed):
    given, found, _ = planted(seed, 100, 4)
    estimate, suspects = CLEANLAB[seed]
    assert confident.estimated(confident.confident_joint(given, found), given).tolist() == estimate
    assert np.flatnonzero(confident.suspects(given, found)).tolist() == suspects
