"""Images in batches of one size, for networks that take no other; without MindSpore."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import Network


def in_batches(run: Network, size: int) -> Network:
    """A network that takes `size` images at once, made one that takes any number: copies of the last fill up."""

    def logits(images: NDArray[Any]) -> NDArray[Any]:
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            parts.append(run(filled(part, size))[: len(part)])
        return np.concatenate(parts)

    return logits


def filled(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Images (N, ...), with copies of the last one up to `size` of them."""
    missing = size - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
