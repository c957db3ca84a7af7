"""The report of an evaluation: what `validate.py --report DIR` writes for images with several labels.

| file | holds |
| --- | --- |
| `per_class.csv` | images, average precision, threshold, precision, recall and F1 of each label |
| `mistakes.png` | the images with a wrong answer whose loss is highest |
| `report.html` | all of it in one page that needs no other file and no network |

Equal evaluations give equal bytes: nothing in the files depends on when, where or on how many ranks they were made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...files import intact
from ...process.display import csv_cell
from ..report import folder as report_folder
from ..report.page import MAPS, document, mistake_figure, mistakes_section, share, table, tiles
from ..report.words import csv_bytes, output_names
from ..report.words import share as cell
from ..scores import Scores
from .metrics import Metrics, Outcomes, probabilities

if TYPE_CHECKING:
    from ...data.samples import Samples
    from ..task import Explain

PAGE = "report.html"
FILES = ("per_class.csv", "mistakes.png", PAGE)
# What the image sheet has room for; labels that are named below an image; letters of such a line.
MISTAKES, NAMED, LETTERS = 24, 3, 28


@dataclass(frozen=True)
class Mistake:
    """A sample with a wrong answer.

    Attributes:
        name: of the sample: its path.
        missed: names and probabilities of the labels that it has and was not given, the least likely first.
        wrong: those that it was given and does not have, the likeliest first.
        pixels: uint8, (height, width, 1 or 3).
        explained: the same with what the network took for the label that stands first in `wrong`, else in `missed`,
            drawn over it; None where nobody asked.
    """

    name: str
    missed: tuple[tuple[str, float], ...]
    wrong: tuple[tuple[str, float], ...]
    pixels: NDArray[Any]
    explained: NDArray[Any] | None = None


# Makes sure, before the work, that a report can be written into a folder, which is made.
prepare = partial(report_folder.prepare, files=FILES)


def write(
    folder: Path, outcomes: Outcomes, samples: Samples, facts: Mapping[str, str], explain: Explain | None = None
) -> None:
    """Write all files of a report, or none: what the arguments are, `task.Report` says.

    Raises:
        RunError: outputs that are not finite, or a file that cannot be written.
        UserError: an image that can no longer be read.
    """
    report_folder.check_finite(np.isfinite(outcomes.logits).all(axis=1), samples)
    names = output_names(samples.classes, outcomes.logits.shape[1])
    indices = worst(outcomes, MISTAKES)
    mistakes = [_mistake(outcomes, index, names, samples) for index in indices]
    if explain is not None:
        drawn = explain([mistake.pixels for mistake in mistakes], [_doubtful(outcomes, index) for index in indices])
        mistakes = [replace(mistake, explained=map_) for mistake, map_ in zip(mistakes, drawn, strict=True)]
    contents = {
        "per_class.csv": _csv(outcomes, names),
        "mistakes.png": _sheet(mistakes),
        PAGE: _html(outcomes, names, mistakes, facts),
    }
    intact.write_all_atomically({folder / name: contents[name] for name in FILES})


def worst(outcomes: Outcomes, number: int) -> list[int]:
    """The samples with a wrong answer whose loss is highest, the highest first; of equal ones the first sample."""
    wrong = np.flatnonzero((outcomes.labels != outcomes.predicted).any(axis=1))
    return wrong[np.argsort(-outcomes.losses[wrong], kind="stable")][:number].tolist()


def _mistake(outcomes: Outcomes, index: int, names: Sequence[str], samples: Samples) -> Mistake:
    shares = probabilities(outcomes.logits[index])
    has, given = outcomes.labels[index], outcomes.predicted[index]

    def named(labels: NDArray[Any], sign: int) -> tuple[tuple[str, float], ...]:
        chosen = np.flatnonzero(labels)
        order = chosen[np.argsort(sign * shares[chosen], kind="stable")]
        return tuple((names[label], float(shares[label])) for label in order.tolist())

    return Mistake(samples.name(index), named(has & ~given, 1), named(given & ~has, -1), samples.read(index))


def _doubtful(outcomes: Outcomes, index: int) -> int:
    """Of a sample with a wrong answer, the likeliest label that was given wrongly, else the least likely one missed."""
    logits = outcomes.logits[index]
    has, given = outcomes.labels[index].astype(bool), outcomes.predicted[index].astype(bool)
    wrong = np.flatnonzero(given & ~has)
    if len(wrong):
        return int(wrong[logits[wrong].argmax()])
    missed = np.flatnonzero(has & ~given)
    return int(missed[logits[missed].argmin()])


def _csv(outcomes: Outcomes, names: Sequence[str]) -> bytes:
    """A line a label, in their order; shares with six digits, empty where they would be 0 / 0."""
    scores = outcomes.scores
    header = ["label", "class", "images", "predicted", "correct", "average_precision", "threshold"]
    rows: list[list[object]] = [[*header, "precision", "recall", "f1"]]
    for label, name in enumerate(names):
        best = [cell(outcomes.average_precisions[label]), f"{outcomes.thresholds[label]:.6f}"]
        rows.append([label, csv_cell(name), *scores.counts(label), *best, *map(cell, scores.shares(label))])
    return csv_bytes(rows)


def _sheet(mistakes: Sequence[Mistake]) -> bytes:
    # Not at the top: it imports matplotlib, which is an extra.
    from ..report.pictures import Captioned, fit, image_sheet

    images = []
    for mistake in mistakes:
        missed = (fit(f"missed: {_listed(mistake.missed)}", LETTERS), "tab:blue")
        wrong = (fit(f"wrong: {_listed(mistake.wrong)}", LETTERS), "tab:red")
        file = (fit(os.path.basename(mistake.name), LETTERS), "grey")
        images.append(Captioned(mistake.pixels, (missed, wrong, file)))
        if mistake.explained is not None:
            label = (mistake.wrong or mistake.missed)[0][0]
            images.append(Captioned(mistake.explained, ((fit(f"where it saw {label}", LETTERS), "tab:red"),)))
    return image_sheet(images, "Every image was given its labels, and no others.")


def _listed(labels: Sequence[tuple[str, float]]) -> str:
    from ..report.pictures import percent

    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return (", ".join(f"{name} ({percent(share)})" for name, share in labels[:NAMED]) or "-") + more


def _html(outcomes: Outcomes, names: Sequence[str], mistakes: Sequence[Mistake], facts: Mapping[str, str]) -> bytes:
    metrics, scores = outcomes.metrics(), outcomes.scores
    parts = [_tiles(metrics, scores), _labels(outcomes, names), _mistakes(mistakes)]
    return document(f"{facts['model']}: mAP {metrics.mean_average_precision:.2f} %", facts, parts)


def _tiles(metrics: Metrics, scores: Scores) -> str:
    return tiles(
        {
            "mAP": f"{metrics.mean_average_precision:.2f} %",
            "micro F1": f"{metrics.micro_f1:.2f} %",
            "macro F1": f"{metrics.macro_f1:.2f} %",
            "mean precision": f"{100 * scores.mean(scores.precision):.2f} %",
            "mean recall": f"{100 * scores.mean(scores.recall):.2f} %",
            "loss (nats)": f"{metrics.loss:.4f}",
            "images": f"{metrics.num_samples:,}",
        }
    )


def _labels(outcomes: Outcomes, names: Sequence[str]) -> str:
    """A line a label, the lowest average precision first."""
    scores, precisions = outcomes.scores, outcomes.average_precisions
    order = sorted(range(len(names)), key=lambda label: (np.nan_to_num(precisions[label], nan=2), label))
    rows = [
        (
            names[label],
            *(f"{count:,}" for count in scores.counts(label)),
            share(precisions[label]),
            f"{outcomes.thresholds[label]:.3f}",
            *map(share, scores.shares(label)),
        )
        for label in order
    ]
    counts = ("label", "images", "predicted", "correct")
    headings = (*counts, "average precision", "threshold", "precision", "recall", "F1")
    note = (
        "<p class=note>The labels with the lowest average precision first; in label order in per_class.csv. Precision, "
        "recall and F1 are those at the threshold, a probability. Means are over the labels that an image has; a "
        "precision of a label that was never given counts as 0 in them.</p>"
    )
    return f"<h2>Labels</h2>{note}<div class=scroll>{table(headings, rows, 1)}</div>"


def _mistakes(found: Sequence[Mistake]) -> str:
    note = (
        "The images with a wrong answer whose loss is highest: labels that were <span class=true>missed</span>, and "
        "those that were <span class=predicted>given wrongly</span>, with their probabilities. Wrong labels in the "
        "data are often among them."
    )
    if any(mistake.explained is not None for mistake in found):
        note += f" {MAPS} It is the first label that was given wrongly, else the first that was missed."
    figures = [
        mistake_figure(
            each.name,
            each.name,
            each.pixels,
            f"missed: {_listed(each.missed)}",
            f"wrong: {_listed(each.wrong)}",
            each.explained,
        )
        for each in found
    ]
    return mistakes_section(figures, "Every image was given its labels, and no others.", note)
