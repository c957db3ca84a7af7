"""The report as one HTML page: pictures inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...report.page import MAPS, document, mistake_figure, mistakes_section, pairs_section, picture, share, table, tiles
from ...scores import Scores
from ..calibration import Calibration
from .tables import Mistake

if TYPE_CHECKING:
    from ..metrics import Metrics


def html(
    metrics: Metrics,
    scores: Scores,
    matrix: NDArray[Any],
    names: Sequence[str],
    calibration: Calibration,
    mistakes: Sequence[Mistake],
    figures: Mapping[str, bytes],
    facts: Mapping[str, str],
) -> bytes:
    """The report as an HTML page that needs no other file, in UTF-8.

    Args:
        metrics, scores, matrix, calibration: the numbers (see `tables`).
        names: of the classes.
        mistakes: the worst ones.
        figures: PNG files by name: `confusion.png` and `reliability.png` are shown.
        facts: what is said about the evaluation beside its numbers, by name.
    """
    parts = [
        _tiles(metrics, scores, calibration),
        _classes(scores, names),
        "<h2>Confusion matrix</h2>",
        "<p class=note>A row for each true class, a column for what it was taken for; colours are shares of the row. "
        "The counts are in confusion.csv.</p>",
        picture("confusion", "confusion matrix", "image/png", figures["confusion.png"]),
        pairs_section(matrix, names, "images"),
        _mistakes(mistakes),
        "<h2>Calibration</h2>",
        "<p class=note>How often the network is right where it is so sure. On the dashed line, probabilities can be "
        "taken at their word; below it, the network is too sure.</p>",
        picture("reliability", "reliability diagram", "image/png", figures["reliability.png"]),
    ]
    return document(f"{facts['model']}: top-1 {metrics.top_1:.2f} %", facts, parts)


def _tiles(metrics: Metrics, scores: Scores, calibration: Calibration) -> str:
    """The numbers that sum up the others."""
    numbers = {"top-1": f"{metrics.top_1:.2f} %"}
    if metrics.top_5 is not None:
        numbers["top-5"] = f"{metrics.top_5:.2f} %"
    numbers |= {
        "loss (nats)": f"{metrics.loss:.4f}",
        "images": f"{metrics.num_samples:,}",
        "mean precision": f"{100 * scores.mean(scores.precision):.2f} %",
        "mean recall": f"{100 * scores.mean(scores.recall):.2f} %",
        "mean F1": f"{100 * scores.mean(scores.f1):.2f} %",
        "calibration error": f"{100 * calibration.error:.2f} %",
    }
    return tiles(numbers)


def _classes(scores: Scores, names: Sequence[str]) -> str:
    """A line a class, the weakest first."""
    order = sorted(range(len(names)), key=lambda label: (np.nan_to_num(scores.f1[label], nan=2), label))
    rows = [
        (
            names[label],
            *(f"{count:,}" for count in scores.counts(label)),
            *map(share, scores.shares(label)),
        )
        for label in order
    ]
    headings = ("class", "images", "predicted", "correct", "precision", "recall", "F1")
    note = (
        "<p class=note>The classes with the lowest F1 first; in label order in per_class.csv. Means are over the "
        "classes that have images; a precision of a class that was never predicted counts as 0 in them.</p>"
    )
    return f"<h2>Classes</h2>{note}<div class=scroll>{table(headings, rows, 1)}</div>"


def _mistakes(found: Sequence[Mistake]) -> str:
    """The worst mistakes: the pictures of the image sheet, with captions that can be selected."""
    note = (
        "The images whose <span class=true>true class</span> got the lowest probability; below it the "
        "<span class=predicted>predicted class</span>. Wrong labels are often among them."
    )
    if any(mistake.explained is not None for mistake in found):
        note += f" {MAPS}"
    return mistakes_section(list(map(_mistake, found)), "No image was taken for another class.", note)


def _mistake(found: Mistake) -> str:
    from ...report.pictures import percent

    true = f"true: {found.true} ({percent(found.true_probability)})"
    wrong = f"taken for: {found.predicted} ({percent(found.predicted_probability)})"
    return mistake_figure(
        found.name, f"{found.true}, taken for {found.predicted}", found.pixels, true, wrong, found.explained
    )
