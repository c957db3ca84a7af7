"""Numbers of several labels: scikit-learn's, in any order and over ranks; thresholds against all that there are."""

import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from mindghost.tasks.multi_label.metrics import (
    Counts,
    Outcomes,
    average_precision,
    best_threshold,
    probabilities,
)

SAMPLES, CLASSES = 300, 6


def case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, rare and frequent; the last class has no sample. With `ties` few different logits."""
    rng = np.random.default_rng(seed)
    labels = rng.random((SAMPLES, CLASSES)) < np.array([0.5, 0.1, 0.02, 0.9, 0.3, 0.0])
    logits = rng.normal(0, 2, labels.shape) + 1.5 * labels - 1
    return (np.round(logits) if ties else logits).astype(np.float32), labels


def outcomes(logits, labels, thresholds=None) -> Outcomes:
    counts = Counts(thresholds)
    for start in range(0, len(labels), 32):
        counts.add(logits[start : start + 32], labels[start : start + 32].astype(np.float32))
    return counts.outcomes()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_scikit_learns(seed, ties):
    logits, labels = case(seed, ties)
    for column, truth in zip(logits.T[:-1], labels.T[:-1], strict=True):
        assert average_precision(column, truth) == pytest.approx(
            theirs.average_precision_score(truth, column), abs=1e-12
        )
    seen = labels.any(axis=0)
    mean = theirs.average_precision_score(labels[:, seen], logits[:, seen], average="macro")
    assert outcomes(logits, labels).metrics().mean_average_precision == pytest.approx(100 * mean, abs=1e-10)


def test_average_precision_by_hand():
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, False, True])) == pytest.approx((1 + 2 / 3) / 2)
    # Equal outputs are one step, whichever comes first.
    assert average_precision(np.ones(4), np.array([True, False, False, False])) == 0.25
    assert math.isnan(average_precision(np.ones(3), np.zeros(3, bool)))
    assert average_precision(np.array([np.nan, 1.0]), np.array([True, False])) == 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_scikit_learns(ties):
    logits, labels = case(1, ties)
    found = outcomes(logits, labels)
    predicted, seen = found.predicted, np.flatnonzero(labels.any(axis=0))
    keys = {"labels": seen, "zero_division": 0}
    metrics = found.metrics()
    assert metrics.macro_f1 == pytest.approx(
        100 * theirs.f1_score(labels, predicted, average="macro", **keys), abs=1e-10
    )
    assert metrics.micro_f1 == pytest.approx(100 * theirs.f1_score(labels, predicted, average="micro"), abs=1e-10)
    precision, recall, f1, _ = theirs.precision_recall_fscore_support(labels, predicted, **keys)
    np.testing.assert_allclose(found.scores.recall[seen], recall, atol=1e-12)
    np.testing.assert_allclose(found.scores.f1[seen], f1, atol=1e-12)
    np.testing.assert_allclose(np.nan_to_num(found.scores.precision[seen]), precision, atol=1e-12)
    losses = [theirs.log_loss(labels[:, k], probabilities(logits[:, k]), labels=[False, True]) for k in range(CLASSES)]
    assert metrics.loss == pytest.approx(np.mean(losses), rel=1e-9)
    assert metrics.num_samples == SAMPLES


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_has_a_higher_f1(seed, ties):
    logits, labels = case(seed, ties)
    for column, truth in zip(logits.T[:-1], labels.T[:-1], strict=True):
        shares = probabilities(column)
        tried = np.array([0.0, *np.unique(shares)])
        given = shares >= tried[:, None]
        scores = 2 * (given & truth).sum(1) / (given.sum(1) + truth.sum())
        chosen = shares >= best_threshold(column, truth)
        assert theirs.f1_score(truth, chosen) == pytest.approx(scores.max(), abs=1e-12)
        # Of those that are as good, the highest.
        assert shares[chosen].min() == tried[scores == scores.max()].max()


def test_thresholds_lie_between_logits():
    assert best_threshold(np.float32([3, 1, -1]), np.array([True, False, False])) == pytest.approx(1 / (1 + np.exp(-2)))
    assert best_threshold(np.float32([3, 1]), np.array([True, True])) == pytest.approx(0.5)
    assert best_threshold(np.float32([3, 1]), np.array([False, False])) == 0.5
    assert best_threshold(np.float32([np.nan, np.nan]), np.array([True, False])) == 0.5


def test_numbers_do_not_depend_on_the_order():
    logits, labels = case(3, True)
    expected = outcomes(logits, labels).metrics()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(SAMPLES)
        assert outcomes(logits[order], labels[order]).metrics() == expected
    assert outcomes(logits, labels).take(np.arange(SAMPLES)[::-1]).metrics() == expected


class Two:
    """The ranks of a run of two, one after the other: what both gave is known from the start."""

    size, main = 2, True

    def __init__(self, contents):
        self.contents = contents

    def gather(self, value):
        return [value, value]

    def gather_bytes(self, content):
        return self.contents


def test_ranks_count_what_one_process_does():
    logits, labels = case(4, False)
    whole = outcomes(logits, labels)
    halves = [np.stack([logits[part], labels[part]]).astype(np.float32) for part in (slice(0, 100), slice(100, None))]
    counts = Counts()
    counts.add(logits[:100], labels[:100])
    found = counts.outcomes(Two([half.tobytes() for half in halves]))
    np.testing.assert_array_equal(found.logits, whole.logits)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.metrics() == whole.metrics()


def test_given_thresholds_are_used():
    logits, labels = case(5, False)
    strict = outcomes(logits, labels, (1.0,) * CLASSES)
    assert strict.thresholds == (1.0,) * CLASSES
    assert strict.metrics().micro_f1 == 0
    assert strict.metrics().mean_average_precision == outcomes(logits, labels).metrics().mean_average_precision
    assert strict.take(np.arange(3)).thresholds == (1.0,) * CLASSES


def test_samples_without_any_label():
    found = outcomes(np.zeros((3, 2), np.float32), np.zeros((3, 2))).metrics()
    assert (found.mean_average_precision, found.micro_f1, found.macro_f1) == (0, 0, 0)
    with pytest.raises(ValueError, match="no sample"):
        Outcomes(np.zeros((0, 2), np.float32), np.zeros((0, 2), bool)).metrics()


def test_probabilities_of_any_size():
    found = probabilities(np.float32([-1000, -1, 0, 1, 1000]))
    np.testing.assert_allclose(found, [0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1], rtol=1e-6)
