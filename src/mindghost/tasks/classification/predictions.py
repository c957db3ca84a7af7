"""The rows of `predictions`: true class, likeliest classes, probabilities and loss of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.table_file import Column
from ..report.words import output_names
from .metrics import cross_entropy
from .show import probabilities

# The likeliest classes of a row; a network with fewer classes has a row of all.
TOP = 5
# Up to so many classes a row has the probabilities of all of them: a million rows take 400 MB.
MOST_LISTED = 100


def columns(known: Sequence[str], classes: int) -> tuple[Column, ...]:
    """What a row has, of a network with so many classes, of which some are known by name."""
    names = output_names(known, classes)
    places = [
        column
        for place in range(1, min(TOP, classes) + 1)
        for column in (
            Column(f"top_{place}_label", "i4"),
            Column(f"top_{place}_class", "i4", names),
            Column(f"top_{place}_probability", "f4"),
        )
    ]
    listed = [Column("probability", "f4", parts=names)] if classes <= MOST_LISTED else []
    return (Column("true_label", "i4"), Column("true_class", "i4", names), Column("loss", "f8"), *places, *listed)


def values(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The columns of one batch: finite logits (N, classes) and labels (N,).

    Equal logits come in the order of their labels, so that the first class is right as often as top-1 says. The loss
    is the cross-entropy of the true class in nats.
    """
    shares = probabilities(logits)
    rows = np.arange(len(labels))
    found: dict[str, NDArray[Any]] = {
        "true_label": labels,
        "true_class": labels,
        "loss": cross_entropy(logits, labels),
    }
    for place, best in enumerate(_best(logits), 1):
        found[f"top_{place}_label"] = found[f"top_{place}_class"] = best
        found[f"top_{place}_probability"] = shares[rows, best]
    if logits.shape[1] <= MOST_LISTED:
        found["probability"] = shares
    return found


def _best(logits: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The likeliest label of each row, the second one, and so on: to sort 1,000 classes takes several times as long."""
    rows, left = np.arange(len(logits)), logits.copy()
    for _ in range(min(TOP, logits.shape[1])):
        best = left.argmax(axis=1)
        yield best
        left[rows, best] = -np.inf
