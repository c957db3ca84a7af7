"""The report of an evaluation: what `validate.py --report DIR` writes for images with masks.

| file | holds |
| --- | --- |
| `per_class.csv` | pixels, IoU, precision, recall and Dice of each class |
| `confusion.csv`, `confusion.png` | which class was taken for which, in pixels and in percent |
| `worst.png` | the images with the largest share of wrong pixels: truth, prediction and errors beside each |
| `report.html` | all of it in one page that needs no other file and no network |

Equal evaluations give equal bytes: nothing in the files depends on when, where or on how many ranks they were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....files import intact
from ....process.display import csv_cell
from ...report import folder as report_folder
from ...report.words import confusion_csv, csv_bytes, output_names, share
from ...scores import Scores
from .. import classes, worst
from ..samples import MaskSamples
from . import page

if TYPE_CHECKING:
    from ....data.samples import Samples
    from ...task import Explain
    from ..metrics import Outcomes

PAGE = "report.html"
FILES = ("per_class.csv", "confusion.csv", "confusion.png", "worst.png", PAGE)

# Makes sure, before the work, that a report can be written into a folder, which is made.
prepare = partial(report_folder.prepare, files=FILES)


def write(
    folder: Path, outcomes: Outcomes, samples: Samples, facts: Mapping[str, str], explain: Explain | None = None
) -> None:
    """Write all files of a report, or none: what the arguments are, `task.Report` says; masks say where already.

    Raises:
        RunError: outputs that are not finite, or a file that cannot be written.
        UserError: an image or mask that can no longer be read.
    """
    # Not at the top: they import matplotlib, which is an extra.
    from ...report.confusion import confusion
    from . import pictures

    assert isinstance(samples, MaskSamples)
    report_folder.check_finite(np.isfinite(outcomes.losses), samples)
    matrix = outcomes.confusion
    names, colors = output_names(samples.classes, len(matrix)), samples.colors or classes.palette(len(matrix))
    scores = Scores(matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix))
    shown = [pictures.Panels.of(kept, samples, colors) for kept in worst.of_all(outcomes.kept)]
    figure = confusion(matrix, names, True)
    contents = {
        "per_class.csv": _csv(scores, outcomes.iou, names),
        "confusion.csv": confusion_csv(matrix, names),
        "confusion.png": figure,
        "worst.png": pictures.sheet(shown, names),
        PAGE: page.html(outcomes, scores, names, colors, shown, figure, facts),
    }
    intact.write_all_atomically({folder / name: contents[name] for name in FILES})


def _csv(scores: Scores, iou: NDArray[Any], names: Sequence[str]) -> bytes:
    """A line a class, in label order; shares with six digits, empty where they would be 0 / 0."""
    rows: list[list[object]] = [
        ["label", "class", "pixels", "predicted", "correct", "iou", "precision", "recall", "dice"]
    ]
    for label, name in enumerate(names):
        counts, shares = scores.counts(label), map(share, (float(iou[label]), *scores.shares(label)))
        rows.append([label, csv_cell(name), *counts, *shares])
    return csv_bytes(rows)
