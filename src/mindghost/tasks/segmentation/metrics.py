"""IoU, pixel accuracy and loss of a network that gives each pixel a class: counts of pixels, divided once.

Each image is judged at its own size, whatever the network got. Counts are integers, and losses are summed up exactly:
nothing depends on the order of the images, or on how many ranks share them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...parallel.ranks import ALONE, Ranks
from . import geometry, worst
from .masks import IGNORED
from .worst import Kept


@dataclass(frozen=True)
class Metrics:
    """Results of one evaluation.

    Attributes:
        iou: intersection over union of each class, by its name, in percent; None for one that no pixel has or was
            given.
        miou: their mean, over the classes that have one.
        pixel_accuracy: percent of the pixels that were given their class.
        loss: mean cross entropy of a pixel, at the masks' own sizes, plain, in nats.
        num_samples: how many images were counted.
    """

    iou: dict[str, float | None]
    miou: float
    pixel_accuracy: float
    loss: float
    num_samples: int

    @property
    def score(self) -> float:
        """The number by which evaluations are compared: the mean IoU, in percent."""
        return self.miou

    def result(self) -> dict[str, Any]:
        """All of them by name, as validation prints them."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "iou": self.iou,
            "loss": self.loss,
            "num_samples": self.num_samples,
        }

    def summary(self) -> str:
        """All of them in one line for people, but for those of the classes."""
        return f"mIoU {self.miou:.2f} %, pixel accuracy {self.pixel_accuracy:.2f} %, loss {self.loss:.4f}"


class Judged(NamedTuple):
    """What a network made of the pixels of one image.

    Attributes:
        predicted: the class of each pixel, uint8 or uint16 (height, width): that of the largest logit, of equal ones
            the lowest.
        confusion: how many pixels of a class (row) were given which (column), int64 (classes, classes).
        loss: sum of the cross entropies of the pixels that count, in nats.
    """

    predicted: NDArray[Any]
    confusion: NDArray[Any]
    loss: float


def judged(outputs: NDArray[Any], mask: NDArray[Any]) -> Judged:
    """Compare the logits for an image, float32 (classes, height, width), with its mask, int (h, w), at the mask's size.

    Pixels that are `masks.IGNORED` do not count.
    """
    classes = len(outputs)
    predicted = np.empty(mask.shape, geometry.kind_of(classes))
    confusion, losses = np.zeros(classes**2, np.int64), []
    for rows, logits in geometry.bands(outputs, (mask.shape[0], mask.shape[1])):
        predicted[rows] = logits.argmax(axis=0)
        counts = mask[rows] != IGNORED
        true = mask[rows][counts].astype(np.int64)
        confusion += np.bincount(true * classes + predicted[rows][counts], minlength=classes**2)
        losses.append(_cross_entropy(logits[:, counts], true))
    return Judged(predicted, confusion.reshape(classes, classes), sum(losses))


def _cross_entropy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The sum over pixels: logits float32 (classes, n), labels int (n,)."""
    if not len(labels):
        return 0.0
    logits = logits - logits.max(axis=0)
    true = logits[labels, np.arange(len(labels))]
    np.exp(logits, out=logits)
    return float((np.log(logits.sum(axis=0)) - true).sum(dtype=np.float64))


@dataclass(frozen=True)
class Outcomes:
    """What a network made of each image.

    Attributes:
        confusion: pixels of a class (row) that were given which (column), of all images together, int64 (classes,
            classes).
        correct: pixels of each image that were given their class, int64 (n,).
        pixels: of each image that count, int64 (n,).
        losses: sum of their cross entropies, float64 (n,).
        classes: names of the classes.
        kept: the images that are worst, of each rank's (`worst.of_all`).
        ignored: `ignore_index`: where it is a class, that one has no IoU, since none of its pixels counts.
    """

    confusion: NDArray[Any]
    correct: NDArray[Any]
    pixels: NDArray[Any]
    losses: NDArray[Any]
    classes: Sequence[str]
    kept: Sequence[Kept] = ()
    ignored: int | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: NDArray[Any]) -> Outcomes:
        """The same, with the images in the order of `indices`, which has all of them."""
        columns = (self.correct[indices], self.pixels[indices], self.losses[indices])
        places = np.argsort(indices)
        kept = [found._replace(place=int(places[found.place])) for found in self.kept]
        return Outcomes(self.confusion, *columns, self.classes, kept, self.ignored)

    @cached_property
    def iou(self) -> NDArray[Any]:
        """Intersection over union of each class, float64 (classes,); NaN where no pixel has it or was given it."""
        return intersection_over_union(self.confusion, self.ignored)

    def metrics(self) -> Metrics:
        """The numbers that they amount to. Raises ValueError where there is no image."""
        if not len(self):
            raise ValueError("no sample was evaluated")
        known = self.iou[~np.isnan(self.iou)]
        pixels = int(self.confusion.sum())
        finite = np.isfinite(self.losses).all()
        loss = math.fsum(self.losses) if finite else float(self.losses.sum())
        return Metrics(
            iou={
                name: None if math.isnan(share) else 100 * share
                for name, share in zip(self.classes, self.iou.tolist(), strict=True)
            },
            miou=100 * math.fsum(known) / len(known) if len(known) else 0.0,
            pixel_accuracy=100 * int(np.trace(self.confusion)) / pixels if pixels else 0.0,
            loss=loss / pixels if pixels else 0.0,
            num_samples=len(self),
        )


def intersection_over_union(confusion: NDArray[Any], ignored: int | None = None) -> NDArray[Any]:
    """Of each class, float64 (classes,), from counts of pixels, int (classes, classes).

    NaN where it would be 0 / 0, and of the class that is `ignored`, if one is.
    """
    both = np.diagonal(confusion)
    with np.errstate(invalid="ignore"):
        found = both / (confusion.sum(axis=0) + confusion.sum(axis=1) - both)
    return np.where(np.arange(len(found)) == ignored, np.nan, found)


class Counts:
    """Collects what a network made of each image, batch by batch."""

    def __init__(self, classes: Sequence[str], ignored: int | None = None) -> None:
        self.classes, self.ignored = classes, ignored
        self.confusion = np.zeros((len(classes), len(classes)), np.int64)
        # Of each image: correct pixels, pixels, loss; the counts are exact in float64, too.
        self.rows: list[tuple[int, int, float]] = []
        self.worst = worst.Worst()

    def add(self, outputs: NDArray[Any], labels: Sequence[NDArray[Any]]) -> None:
        """Count one batch: logits (N, classes, height, width) float32, a mask of any size for each."""
        for logits, mask in zip(outputs, labels, strict=True):
            found = judged(logits, mask)
            self.confusion += found.confusion
            shares = intersection_over_union(found.confusion, self.ignored)
            self.worst.add(len(self.rows), found.confusion, shares, found.predicted)
            self.rows.append((int(np.trace(found.confusion)), int(found.confusion.sum()), found.loss))

    def outcomes(self, ranks: Ranks = ALONE) -> Outcomes:
        """The outcomes of all ranks' images, rank after rank. Every rank has to call it."""
        confusion = np.sum(ranks.gather(self.confusion), axis=0)
        own = np.array(self.rows, np.float64).reshape(-1, 3)
        parts = [np.frombuffer(part).reshape(-1, 3) for part in ranks.gather_bytes(own.tobytes())]
        before = itertools.accumulate(map(len, parts), initial=0)
        # The last number is that of all.
        kept = zip(ranks.gather_bytes(worst.encoded(self.worst.kept)), before, strict=False)
        rows = np.concatenate(parts)
        return Outcomes(
            confusion,
            rows[:, 0].astype(np.int64),
            rows[:, 1].astype(np.int64),
            rows[:, 2],
            self.classes,
            [found for part, count in kept for found in worst.decoded(part, count)],
            self.ignored,
        )
