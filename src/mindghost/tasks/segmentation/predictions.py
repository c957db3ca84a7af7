"""The rows of `predictions`: how well the pixels of each image were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.table_file import Column
from .metrics import intersection_over_union, judged

COLUMNS = (
    Column("pixels", "i8"),
    Column("pixel_accuracy", "f8"),
    Column("miou", "f8"),
    Column("loss", "f8"),
)


def values(
    outputs: NDArray[Any], labels: Sequence[NDArray[Any]], ignored: int | None = None
) -> dict[str, NDArray[Any]]:
    """The columns of one batch: logits (N, classes, height, width), a mask for each.

    Pixels that count; percent of them that were given their class; mean IoU of the classes of the image, in percent,
    without that of `ignored`, if it is a class; mean cross entropy of a pixel, in nats. NaN of an image all of whose
    pixels are ignored.
    """
    rows = []
    for logits, mask in zip(outputs, labels, strict=True):
        found = judged(logits, mask)
        pixels = int(found.confusion.sum())
        if not pixels:
            rows.append((0, np.nan, np.nan, np.nan))
            continue
        shares = intersection_over_union(found.confusion, ignored)
        correct = int(np.trace(found.confusion))
        rows.append((pixels, 100 * correct / pixels, 100 * float(np.nanmean(shares)), found.loss / pixels))
    return {column.name: np.array(part) for column, part in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
