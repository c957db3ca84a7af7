"""The pictures of a report, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ...report.pictures import DPI, Captioned, as_png, fit, image_sheet, percent
from ..calibration import BINS, Calibration
from .tables import Mistake

if TYPE_CHECKING:
    pass

# Letters of a class's name that are shown under a picture.
CAPTION_LETTERS = 16


@as_png
def reliability(calibration: Calibration) -> Figure:
    """Accuracy over probability, in bins, and how many images are in each."""
    figure = Figure((6, 5.4), DPI, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    width = 1 / BINS
    centres = (np.arange(BINS) + 0.5) * width
    full = calibration.counts > 0
    upper.bar(centres[full], calibration.accuracy[full], width, color="tab:blue", edgecolor="white", label="accuracy")
    upper.plot(
        calibration.confidence[full],
        calibration.accuracy[full],
        "o",
        color="black",
        markersize=4,
        label="mean probability",
    )
    upper.plot([0, 1], [0, 1], "--", color="0.4", label="as sure as right")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"expected calibration error {100 * calibration.error:.2f} %", fontsize=11)
    upper.legend(loc="upper left", fontsize=9)
    lower.bar(centres, 100 * calibration.counts / calibration.counts.sum(), width, color="0.6", edgecolor="white")
    lower.set(xlabel="probability of the predicted class", ylabel="images (%)")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def mistakes(worst: Sequence[Mistake]) -> bytes:
    """The worst mistakes, with true class, predicted class and their probabilities under each picture."""
    images = [image for mistake in worst for image in _captioned(mistake)]
    return image_sheet(images, "No image was taken for another class.")


def _captioned(mistake: Mistake) -> list[Captioned]:
    """The image, and beside it, if there is one, the map."""
    lines = (
        (f"true: {fit(mistake.true, CAPTION_LETTERS)} ({percent(mistake.true_probability)})", "tab:blue"),
        (f"taken for: {fit(mistake.predicted, CAPTION_LETTERS)} ({percent(mistake.predicted_probability)})", "tab:red"),
        (fit(os.path.basename(mistake.name), CAPTION_LETTERS + 10), "grey"),
    )
    image = Captioned(mistake.pixels, lines)
    if mistake.explained is None:
        return [image]
    seen = (f"where it saw {fit(mistake.predicted, CAPTION_LETTERS)}", "tab:red")
    return [image, Captioned(mistake.explained, (seen,))]
