"""How probabilities compare with accuracy, and the temperature that brings them together.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runs.files import LEAST_TEMPERATURE, MOST_TEMPERATURE

# Of equal width, as in the paper.
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """How probabilities compare with accuracy, in bins of equal width over (0, 1].

    Attributes:
        counts: samples in each bin, by the probability of the predicted class.
        confidence: their mean probability; NaN in an empty bin.
        accuracy: share of them that is right; NaN in an empty bin.
        error: the expected calibration error: the mean of |accuracy - confidence| over the samples.
    """

    counts: NDArray[Any]
    confidence: NDArray[Any]
    accuracy: NDArray[Any]
    error: float


def calibration(confidences: NDArray[Any], right: NDArray[Any]) -> Calibration:
    """Probabilities of the predicted classes, float (N,), against whether these are right, bool (N,)."""
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    # Rounded once, so that the order of the samples does not matter.
    confident = np.array([math.fsum(confidences[bins == each]) for each in range(BINS)])
    correct = np.bincount(bins, right, BINS)
    with np.errstate(invalid="ignore"):
        error = math.fsum(np.abs(correct - confident)) / len(right)
        return Calibration(counts, confident / counts, correct / counts, error)


def temperature(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The number that logits are divided by where their mean cross-entropy is lowest.

    Args:
        logits: (N, classes) float.
        labels: (N,) int.

    It lies between `LEAST_TEMPERATURE` and `MOST_TEMPERATURE`. The loss is a convex function of 1 / temperature, and
    has one minimum; none where all logits are right, for which one of many temperatures with no loss is found.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    true = wide[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((np.log(np.exp(wide * scale).sum(axis=1)) - true * scale).mean())

    bounds = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    from scipy.optimize import minimize_scalar  # most commands do without

    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(np.clip(math.exp(found.x), LEAST_TEMPERATURE, MOST_TEMPERATURE))
