"""The numbers of a report: counts over all samples, divided once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....process.display import csv_cell
from ...report.words import csv_bytes, share
from ...scores import Scores

if TYPE_CHECKING:
    from ....data.samples import Samples
    from ..metrics import Outcomes


@dataclass(frozen=True)
class Mistake:
    """A sample that was taken for another class.

    Attributes:
        name: of the sample: its path.
        true, predicted: names of the classes.
        true_probability, predicted_probability: what the network gives them.
        pixels: uint8, (height, width, 1 or 3).
        explained: the same with what the network took for the predicted class drawn over it; None where nobody asked.
    """

    name: str
    true: str
    predicted: str
    true_probability: float
    predicted_probability: float
    pixels: NDArray[Any]
    explained: NDArray[Any] | None = None

    @classmethod
    def of(cls, outcomes: Outcomes, index: int, names: Sequence[str], samples: Samples) -> Mistake:
        """The mistake that sample `index` is. Raises UserError where its image cannot be read."""
        return cls(
            name=samples.name(index),
            true=names[outcomes.labels[index]],
            predicted=names[outcomes.predicted[index]],
            true_probability=math.exp(-outcomes.losses[index]),
            predicted_probability=float(outcomes.confidences[index]),
            pixels=samples.read(index),
        )


def finite(outcomes: Outcomes) -> NDArray[Any]:
    """Which samples have usable probabilities: bool, (N,)."""
    return (outcomes.predicted >= 0) & np.isfinite(outcomes.confidences) & np.isfinite(outcomes.losses)


def confusion(outcomes: Outcomes) -> NDArray[Any]:
    """Samples of each class (row) that were taken for each class (column): int, (classes, classes)."""
    size = outcomes.classes
    cells = np.bincount(outcomes.labels * size + outcomes.predicted, minlength=size * size)
    return cells.reshape(size, size)


def scores(matrix: NDArray[Any]) -> Scores:
    """The scores that a confusion matrix amounts to."""
    return Scores(matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal())


def worst_mistakes(outcomes: Outcomes, number: int) -> list[int]:
    """The samples that were taken for another class with the lowest probability of the true one, the lowest first."""
    wrong = np.flatnonzero(outcomes.ranks_of_truth > 0)
    # Stable: of equal losses, the first sample.
    return wrong[np.argsort(-outcomes.losses[wrong], kind="stable")][:number].tolist()


def scores_csv(table: Scores, names: Sequence[str]) -> bytes:
    """A line a class, in label order; shares with six digits, empty where they would be 0 / 0."""
    rows = [
        [label, csv_cell(name), *table.counts(label), *map(share, table.shares(label))]
        for label, name in enumerate(names)
    ]
    header = ["label", "class", "images", "predicted", "correct", "precision", "recall", "f1"]
    return csv_bytes([header, *rows])
