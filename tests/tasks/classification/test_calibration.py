"""The temperature of logits, and how far probabilities are from accuracy."""

import math

import numpy as np
import pytest

from mindghost import tasks
from mindghost.config import Config
from mindghost.tasks.classification import calibration
from mindghost.tasks.classification.metrics import Counts


def honest(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn by their very probabilities."""
    random = np.random.RandomState(seed)
    logits = random.normal(0, 2, (count, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, np.array([random.choice(classes, p=row) for row in shares])


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0, 12.0])
def test_the_temperature_of_scaled_logits_is_recovered(factor):
    logits, labels = honest(20_000, 5, 3)
    found = calibration.temperature(logits * factor, labels)
    assert found == pytest.approx(factor, rel=0.03)
    # Scaling is all that there is: what is found scales with it.
    assert found == pytest.approx(factor * calibration.temperature(logits, labels), rel=1e-5)


def test_it_is_the_best_of_many():
    logits, labels = honest(300, 4, 5)
    logits = np.float32(logits * 2.5)

    def loss(temperature: float) -> float:
        total = 0.0
        for row, label in zip(np.float64(logits) / temperature, labels, strict=True):
            total += math.log(sum(math.exp(value - row.max()) for value in row)) + row.max() - row[label]
        return total / len(labels)

    found = calibration.temperature(logits, labels)
    assert all(loss(found) <= loss(other) + 1e-12 for other in np.geomspace(0.02, 50, 60))
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_logits_that_have_no_best_temperature_get_one_within_bounds():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2]] * 10
    # All right: from some sharpness on, the loss is 0 to the last bit.
    assert 0.01 <= calibration.temperature(logits, np.array([0, 1, 2])) < 0.2
    assert calibration.temperature(logits, np.array([1, 2, 0])) == pytest.approx(100, rel=0.01)
    assert 0.01 <= calibration.temperature(np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])) <= 100
    huge = np.array([[3e38, -3e38], [3e38, -3e38]], np.float32)
    assert np.isfinite(calibration.temperature(huge, np.array([0, 1])))


def test_dividing_keeps_the_order_and_brings_the_error_down():
    logits, labels = honest(5_000, 10, 7)
    logits = np.float32(logits * 4)
    temperature = tasks.of(Config()).temperature(logits, labels)
    numbers = []
    for divided in (logits, logits / temperature):
        counts = Counts()
        counts.add(divided, labels)
        numbers.append(counts.outcomes().metrics())
    before, after = numbers
    assert (before.top_1, before.top_5) == (after.top_1, after.top_5)
    assert after.loss < before.loss
    assert after.calibration_error < 2 < 15 < before.calibration_error


def test_the_order_of_the_samples_changes_no_bit():
    logits, labels = honest(3_000, 6, 9)
    counts = Counts()
    counts.add(np.float32(logits), labels)
    outcomes = counts.outcomes()
    order = np.random.RandomState(0).permutation(3_000)
    assert outcomes.take(order).metrics() == outcomes.metrics()


def test_numbers_that_are_not_finite_have_no_error():
    counts = Counts()
    counts.add(np.array([[0.0, np.nan]]), np.array([0]))
    assert counts.outcomes().metrics().calibration_error is None
