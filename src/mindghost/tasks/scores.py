"""Precision, recall and F1 of each class or label, from counts that are divided once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Counts of each class, int (classes,), and what they amount to, float (classes,): NaN where it would be 0 / 0.

    Attributes:
        support: images that have the class.
        predicted: images that were given it.
        correct: images that have it and were given it.
    """

    support: NDArray[Any]
    predicted: NDArray[Any]
    correct: NDArray[Any]

    @cached_property
    def precision(self) -> NDArray[Any]:
        """Correct / predicted."""
        return _divided(self.correct, self.predicted)

    @cached_property
    def recall(self) -> NDArray[Any]:
        """Correct / support."""
        return _divided(self.correct, self.support)

    @cached_property
    def f1(self) -> NDArray[Any]:
        """The harmonic mean of the two: 2 correct / (support + predicted)."""
        return _divided(2 * self.correct, self.support + self.predicted)

    def counts(self, label: int) -> Iterator[int]:
        """The three counts of a class."""
        return (int(column[label]) for column in (self.support, self.predicted, self.correct))

    def shares(self, label: int) -> Iterator[float]:
        """Precision, recall and F1 of a class."""
        return (float(column[label]) for column in (self.precision, self.recall, self.f1))

    def mean(self, score: NDArray[Any]) -> float:
        """The mean of a score over the classes that have images; one that is NaN counts as 0. 0 where there is none."""
        values = np.nan_to_num(score[self.support > 0])
        return math.fsum(values) / len(values) if len(values) else 0.0


def _divided(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        return part / whole
