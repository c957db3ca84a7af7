"""The classes that a network gives images, as answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..show import Guess


def guesses(logits: NDArray[Any], classes: Sequence[str], most: int | None) -> list[tuple[Guess, ...]]:
    """Of each row of logits (N, classes), the likeliest classes, up to `most`; of equal ones the lower label first."""
    rows = []
    for shares in probabilities(logits):
        best = np.argsort(-shares, kind="stable")[:most]
        rows.append(tuple(Guess(int(label), classes[label], float(shares[label])) for label in best))
    return rows


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax of (N, classes), in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
