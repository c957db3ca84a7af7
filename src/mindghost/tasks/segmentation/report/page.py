"""The report as one HTML page: pictures inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ....process.display import html as escape
from ....runs.files import Color
from ...report.page import document, image, pairs_section, picture, share, table, tiles
from ...scores import Scores

if TYPE_CHECKING:
    from ..metrics import Outcomes
    from .pictures import Panels


def html(
    outcomes: Outcomes,
    scores: Scores,
    names: Sequence[str],
    colors: Sequence[Color],
    shown: Sequence[Panels],
    confusion: bytes,
    facts: Mapping[str, str],
) -> bytes:
    """The report as an HTML page that needs no other file, in UTF-8.

    Args:
        outcomes, scores: the numbers.
        names, colors: of the classes.
        shown: the worst images.
        confusion: the confusion matrix, a PNG file.
        facts: what is said about the evaluation beside its numbers, by name.
    """
    parts = [
        _tiles(outcomes, scores),
        _classes(outcomes, scores, names, colors),
        "<h2>Confusion matrix</h2>",
        "<p class=note>A row for each true class, a column for what its pixels were taken for, in percent of the row. "
        "The counts are in confusion.csv.</p>",
        picture("confusion", "confusion matrix", "image/png", confusion),
        pairs_section(outcomes.confusion, names, "pixels"),
        _worst(shown, names),
    ]
    return document(f"{facts['model']}: mIoU {outcomes.metrics().miou:.2f} %", facts, parts)


def _tiles(outcomes: Outcomes, scores: Scores) -> str:
    metrics = outcomes.metrics()
    return tiles(
        {
            "mIoU": f"{metrics.miou:.2f} %",
            "pixel accuracy": f"{metrics.pixel_accuracy:.2f} %",
            "mean class accuracy": f"{100 * scores.mean(scores.recall):.2f} %",
            "loss (nats)": f"{metrics.loss:.4f}",
            "images": f"{metrics.num_samples:,}",
            "pixels": f"{outcomes.pixels.sum():,}",
        }
    )


def _classes(outcomes: Outcomes, scores: Scores, names: Sequence[str], colors: Sequence[Color]) -> str:
    """A line a class, the lowest IoU first."""
    iou, pixels = outcomes.iou, max(1, int(scores.support.sum()))
    order = sorted(range(len(names)), key=lambda label: (np.nan_to_num(iou[label], nan=2), label))
    rows = [
        (
            names[label],
            share(float(iou[label])),
            *map(share, scores.shares(label)),
            share(float(scores.support[label] / pixels)),
            *(f"{count:,}" for count in scores.counts(label)),
        )
        for label in order
    ]
    headings = ("class", "IoU", "precision", "recall", "Dice", "of all pixels", "pixels", "predicted", "correct")
    note = (
        "<p class=note>The classes with the lowest IoU first; in label order in per_class.csv. A class that no pixel "
        "has and none was given has no IoU, and no part in the mean. The mean class accuracy is that of the recalls of "
        "the classes that pixels have.</p>"
    )
    listed = table(headings, rows, 1, [colors[label] for label in order])
    return f"<h2>Classes</h2>{note}<div class=scroll>{listed}</div>"


def _worst(shown: Sequence[Panels], names: Sequence[str]) -> str:
    heading = "<h2>Worst images</h2>"
    if not shown:
        return f"{heading}<p class=note>Every pixel was given its class.</p>"
    note = (
        "<p class=note>The images with the largest share of wrong pixels: image, truth, prediction, and errors in "
        "orange. Striped pixels do not count.</p>"
    )
    return f"{heading}{note}{''.join(_figure(panels, names) for panels in shown)}"


def _figure(panels: Panels, names: Sequence[str]) -> str:
    from .pictures import TITLES

    cells = [
        image("panel", f"{title} of {panels.name}", pixels, is_photo=title == "image")
        for title, pixels in zip(TITLES, panels.pictures, strict=True)
    ]
    numbers, mistakes = panels.lines(names)
    return (
        f"<figure class=panels><div>{''.join(cells)}</div>{escape(numbers)}<br><span class=predicted>"
        f"{escape(mistakes)}</span><br><span class=file>{escape(panels.name)}</span></figure>"
    )
