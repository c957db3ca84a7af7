"""The report of an evaluation: what `validate.py --report DIR` writes beside its one JSON line.

| file | holds |
| --- | --- |
| `per_class.csv` | support, precision, recall and F1 of each class |
| `confusion.csv`, `confusion.png` | which class was taken for which, in images |
| `mistakes.png` | the images that the network was most wrong about, each beside where it saw the wrong class |
| `reliability.png` | how often the network is right where it says that it is sure |
| `report.html` | all of it in one page that needs no other file and no network |

Equal evaluations give equal bytes: nothing in the files depends on when, where or on how many ranks they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ....files import intact
from ...report import folder as report_folder
from ...report.words import confusion_csv, output_names
from . import page, tables

if TYPE_CHECKING:
    from ....data.samples import Samples
    from ...task import Explain
    from ..metrics import Outcomes

PAGE = "report.html"
FILES = ("per_class.csv", "confusion.csv", "confusion.png", "mistakes.png", "reliability.png", PAGE)
# What the image sheet has room for.
MISTAKES = 24


# Makes sure, before the work, that a report can be written into a folder, which is made.
prepare = partial(report_folder.prepare, files=FILES)


def write(
    folder: Path, outcomes: Outcomes, samples: Samples, facts: Mapping[str, str], explain: Explain | None = None
) -> None:
    """Write the report of an evaluation: all of its files, or none.

    Args:
        folder: see `prepare`.
        outcomes: of each sample, in the order of `samples`.
        samples: what was evaluated; the images of the worst mistakes are read from it.
        facts: what the page says about the evaluation beside its numbers, by name.
        explain: draws where the network saw the predicted class of a mistake; None: mistakes have no maps.

    Raises:
        RunError: probabilities that are not finite, or a file that cannot be written.
        UserError: an image that can no longer be read.
    """
    # Not at the top: it imports matplotlib, which is an extra.
    from ...report.confusion import confusion
    from . import pictures

    report_folder.check_finite(tables.finite(outcomes), samples)
    names = output_names(samples.classes, outcomes.classes)
    matrix = tables.confusion(outcomes)
    scores = tables.scores(matrix)
    calibration = outcomes.calibration()
    worst = tables.worst_mistakes(outcomes, MISTAKES)
    mistakes = [tables.Mistake.of(outcomes, index, names, samples) for index in worst]
    if explain is not None:
        drawn = explain([mistake.pixels for mistake in mistakes], [int(outcomes.predicted[index]) for index in worst])
        mistakes = [replace(mistake, explained=map_) for mistake, map_ in zip(mistakes, drawn, strict=True)]
    figures = {
        "confusion.png": confusion(matrix, names),
        "mistakes.png": pictures.mistakes(mistakes),
        "reliability.png": pictures.reliability(calibration),
    }
    html = page.html(outcomes.metrics(), scores, matrix, names, calibration, mistakes, figures, facts)
    contents = {
        "per_class.csv": tables.scores_csv(scores, names),
        "confusion.csv": confusion_csv(matrix, names),
        **figures,
        PAGE: html,
    }
    intact.write_all_atomically({folder / name: contents[name] for name in FILES})
