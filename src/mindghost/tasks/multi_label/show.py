"""The labels that a network gives images, as answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..show import Guess
from .metrics import USUAL_THRESHOLD, probabilities


def labels(
    logits: NDArray[Any], classes: Sequence[str], most: int | None, thresholds: Sequence[float] | None
) -> list[tuple[Guess, ...]]:
    """Of each row of logits (N, classes), the labels whose probability reaches its threshold, the likeliest first.

    Args:
        logits: float32, (N, classes).
        classes: names of the outputs.
        most: answers that are wanted at most; None for all.
        thresholds: of each output; None where none are known, which takes `USUAL_THRESHOLD` for all.
    """
    limits = np.full(logits.shape[1], USUAL_THRESHOLD) if thresholds is None else np.array(thresholds)
    rows = []
    for shares in probabilities(logits):
        # Stable: of equal ones the lower label first.
        order = [label for label in np.argsort(-shares, kind="stable").tolist() if shares[label] >= limits[label]]
        rows.append(tuple(Guess(label, classes[label], float(shares[label])) for label in order[:most]))
    return rows
