"""Tables of a report as CSV, and names for all of a network's outputs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.imagenet import names as imagenet_names
from ...process.display import csv_cell


def output_names(known: Sequence[str], outputs: int) -> list[str]:
    """What each output of a network is shown as; those beyond the known ones are called by their number."""
    return [*imagenet_names.shown_as(known), *(f"#{label}" for label in range(len(known), outputs))]


def share(value: float) -> str:
    """A share as a cell: six digits, empty where it would be 0 / 0."""
    return "" if math.isnan(value) else f"{value:.6f}"


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    """A table as a CSV file in UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def confused_pairs(matrix: NDArray[Any], number: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: true class, what it was taken for, how often; in label order where equal."""
    mistakes = matrix - np.diag(matrix.diagonal())
    cells = np.argsort(-mistakes, axis=None, kind="stable")[:number]
    pairs = [(int(cell) // len(matrix), int(cell) % len(matrix), int(mistakes.flat[cell])) for cell in cells]
    return [pair for pair in pairs if pair[2] > 0]


def confusion_csv(matrix: NDArray[Any], names: Sequence[str]) -> bytes:
    """A line for each true class, a column for each predicted one."""
    cells = list(map(csv_cell, names))
    return csv_bytes(
        [["true \\ predicted", *cells], *([cell, *row] for cell, row in zip(cells, matrix.tolist(), strict=True))]
    )
