"""Tables of a report as CSV, and names for all of a network's outputs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from ...data.imagenet import names as imagenet_names


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
