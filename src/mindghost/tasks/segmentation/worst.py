"""The images of an evaluation with the largest shares of wrong pixels, and what a network made of them.

They are kept while images are counted: a report shows them, and to keep the masks of all would take too much memory.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import geometry

# Images that are kept; pixels of the longer side of their masks; kinds of mistakes of each.
KEPT, SIDE, MISTAKES = 12, 256, 3


class Kept(NamedTuple):
    """An image, and what a network made of it; they sort as they are shown.

    Attributes:
        accuracy: share of its pixels that were given their class.
        place: among the images.
        miou: mean of the IoU of its classes, those that it has or was given.
        mistakes: its most frequent ones, int64 (up to MISTAKES, 3): true class, what it was taken for, pixels.
        predicted: the class of each pixel, uint8 or uint16, made as small as `small` makes masks.
    """

    accuracy: float
    place: int
    miou: float
    mistakes: NDArray[Any]
    predicted: NDArray[Any]


class Worst:
    """Collects them."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def add(self, place: int, confusion: NDArray[Any], shares: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Look at an image.

        Args:
            place: of it, higher than those of the images before.
            confusion: how many of its pixels of a class (row) were given which (column), int (classes, classes).
            shares: IoU of each class, float (classes,); NaN where there is none.
            predicted: the class of each pixel, uint8 or uint16 (height, width).
        """
        pixels, correct = int(confusion.sum()), int(np.trace(confusion))
        if correct == pixels or (len(self.kept) == KEPT and correct / pixels >= self.kept[-1].accuracy):
            return
        found = Kept(correct / pixels, place, float(np.nanmean(shares)), _mistakes(confusion), small(predicted))
        bisect.insort(self.kept, found, key=_order)
        del self.kept[KEPT:]


def _order(kept: Kept) -> tuple[float, int]:
    return kept.accuracy, kept.place


def of_all(kept: Iterable[Kept]) -> list[Kept]:
    """The worst of those that several collections have kept."""
    return sorted(kept, key=_order)[:KEPT]


def small(mask: NDArray[Any]) -> NDArray[Any]:
    """A mask, (height, width), whose longer side has SIDE pixels at most."""
    size = (mask.shape[0], mask.shape[1])
    if max(size) <= SIDE:
        return mask
    return geometry.nearest(mask, geometry.fitted(size, (SIDE, SIDE)), slice(None), slice(None))


def _mistakes(confusion: NDArray[Any]) -> NDArray[Any]:
    """The most frequent mistakes, in label order where equal."""
    true, taken = np.nonzero(confusion)
    wrong = true != taken
    rows = np.stack([true[wrong], taken[wrong], confusion[true[wrong], taken[wrong]]], axis=1)
    return rows[np.argsort(-rows[:, 2], kind="stable")][:MISTAKES]


def encoded(kept: Sequence[Kept]) -> bytes:
    """What one rank has kept, for the others; `decoded` reads it."""
    numbers = np.array([(found.accuracy, found.place, found.miou) for found in kept], np.float64)
    arrays = {"numbers": numbers.reshape(-1, 3)}
    for number, found in enumerate(kept):
        arrays |= {f"mistakes {number}": found.mistakes, f"predicted {number}": found.predicted}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def decoded(content: bytes, before: int) -> list[Kept]:
    """What `encoded` was given, by a rank whose images come after those of other ranks, `before` of them."""
    with np.load(io.BytesIO(content)) as arrays:
        return [
            Kept(float(accuracy), before + int(place), float(miou), arrays[f"mistakes {n}"], arrays[f"predicted {n}"])
            for n, (accuracy, place, miou) in enumerate(arrays["numbers"].tolist())
        ]
