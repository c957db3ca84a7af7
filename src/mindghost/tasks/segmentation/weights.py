"""What the names that `class_weights` takes mean for masks: a weight for each class from how many pixels have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENET = 1.02


def balanced(pixels: NDArray[Any]) -> Sequence[float]:
    """Pixels / (classes x pixels of the class), of the classes that have some; 1 for others.

    `pixels` of all these rules are those of each image and class, int (images, classes).
    """
    counts = pixels.sum(axis=0).tolist()
    total, classes = sum(counts), sum(1 for count in counts if count)
    return [total / (classes * count) if count else 1.0 for count in counts]


def median_frequency(pixels: NDArray[Any]) -> Sequence[float]:
    """The median of all frequencies / that of the class: its share of the pixels of images that have it (SegNet's)."""
    has = pixels > 0
    counts, sizes = pixels.sum(axis=0), (has * pixels.sum(axis=1, keepdims=True)).sum(axis=0)
    present = counts > 0
    frequencies = counts[present] / sizes[present]
    weights = np.ones(len(counts))
    weights[present] = np.median(frequencies) / frequencies
    return weights.tolist()


def enet(pixels: NDArray[Any]) -> Sequence[float]:
    """1 / ln(1.02 + share of all pixels), from 1.4 up to 50.5 (ENet's); 1 for a class that has none."""
    counts = pixels.sum(axis=0).tolist()
    return [1 / math.log(_ENET + count / sum(counts)) if count else 1.0 for count in counts]


RULES: dict[str, Callable[[NDArray[Any]], Sequence[float]]] = {
    "balanced": balanced,
    "median_frequency": median_frequency,
    "enet": enet,
}
