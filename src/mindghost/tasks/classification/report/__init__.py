"""The report of an evaluation: what `validate.py --report DIR` writes beside its one JSON line.

| file | holds |
| --- | --- |
| `per_class.csv` | support, precision, recall and F1 of each class |
| `confusion.csv`, `confusion.png` | which class was taken for which, in images |
| `mistakes.png` | the images that the network was most wrong about |
| `reliability.png` | how often the network is right where it says that it is sure |
| `report.html` | all of it in one page that needs no other file and no network |

Equal evaluations give equal bytes: nothing in the files depends on when, where or on how many ranks they were made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import RunError, UserError
from ....files import intact, paths
from . import page, tables

if TYPE_CHECKING:
    from ....data.samples import Samples
    from ..metrics import Outcomes

PAGE = "report.html"
FILES = ("per_class.csv", "confusion.csv", "confusion.png", "mistakes.png", "reliability.png", PAGE)
# What the image sheet has room for.
MISTAKES = 24


def prepare(folder: Path, overwrite: bool) -> None:
    """Make sure, before the work, that a report can be written into `folder`, which is made.

    Raises UserError where a library is missing, the folder takes no files, or it holds a file with the name of one of a
    report's and `overwrite` is false. Other files are left alone in any case.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"report: matplotlib draws its pictures ({error}); pip install matplotlib, or leave the key out"
        ) from error
    paths.check_output_folder(folder, "report")
    found = [name for name in FILES if os.path.lexists(folder / name)]
    if found and not overwrite:
        if _holds_a_report(folder):
            raise UserError(
                f"report: {folder} already holds a report; give another folder, or --overwrite True to replace it"
            )
        raise UserError(f"report: {folder} holds a file that is no report's ({found[0]}); give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        intact.check_room(folder, 1)
    except OSError as error:
        raise paths.not_writable(folder, "report", error) from error


def _holds_a_report(folder: Path) -> bool:
    """Whether a folder holds a whole report: its page is written last."""
    return paths.is_file(folder / PAGE) and page.is_one(paths.read(folder / PAGE, "give another folder"))


def write(folder: Path, outcomes: Outcomes, samples: Samples, facts: Mapping[str, str]) -> None:
    """Write the report of an evaluation: all of its files, or none.

    Args:
        folder: see `prepare`.
        outcomes: of each sample, in the order of `samples`.
        samples: what was evaluated; the images of the worst mistakes are read from it.
        facts: what the page says about the evaluation beside its numbers, by name.

    Raises:
        RunError: probabilities that are not finite, or a file that cannot be written.
        UserError: an image that can no longer be read.
    """
    # Not at the top: it imports matplotlib, which is an extra.
    from . import pictures

    strange = ~tables.finite(outcomes)
    if strange.any():
        raise RunError(
            f"report: the network gives no finite probabilities for {strange.sum():,} of {len(outcomes):,} images, "
            f"such as {samples.name(int(strange.argmax()))}; no report is written"
        )
    names = tables.class_names(samples.classes, outcomes.classes)
    matrix = tables.confusion(outcomes)
    scores = tables.scores(matrix)
    calibration = tables.calibration(outcomes)
    mistakes = [
        tables.Mistake.of(outcomes, index, names, samples) for index in tables.worst_mistakes(outcomes, MISTAKES)
    ]
    figures = {
        "confusion.png": pictures.confusion(matrix, names),
        "mistakes.png": pictures.mistakes(mistakes),
        "reliability.png": pictures.reliability(calibration),
    }
    html = page.html(outcomes.metrics(), scores, matrix, names, calibration, mistakes, figures, facts)
    contents = {
        "per_class.csv": tables.scores_csv(scores, names),
        "confusion.csv": tables.confusion_csv(matrix, names),
        **figures,
        PAGE: html,
    }
    intact.write_all_atomically({folder / name: contents[name] for name in FILES})
