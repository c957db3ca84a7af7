"""Which file to ship: every format and precision that can be made of a run here, measured, and one recommended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import tasks
from ...files import paths
from ...inference.deployment import Deployment
from ...runs import provenance
from ...runtime import Runtime
from ...tasks.task import Metrics, Task
from ..quantize.search import keeps
from . import clock
from .clock import Speed
from .files import Candidate, Settings, make


@dataclass(frozen=True)
class Measured:
    """A file, and what was measured of it.

    Attributes:
        candidate: the file.
        metrics: over the validation images.
        speed: for one image, and for many.
    """

    candidate: Candidate
    metrics: Metrics
    speed: Speed


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        task: of the network.
        weights: the checkpoint that all files were made of.
        metrics: its own.
        files: those that were made.
        missing: format or precision -> why there is none of it.
        chosen: the file to ship; None where none is as accurate as was asked for.
        max_drop: points of the score that it may lose.
        threads: that each runtime had.
        batch: images of the throughput.
        machine: processor, in words.
    """

    task: Task
    weights: Path
    metrics: Metrics
    files: Sequence[Measured]
    missing: dict[str, str]
    chosen: Measured | None
    max_drop: float
    threads: int
    batch: int
    machine: str

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        score = self.task.score
        return {
            "weights": str(self.weights),
            score: self.metrics.score,
            "num_samples": self.metrics.num_samples,
            "machine": self.machine,
            "threads": self.threads,
            "batch": self.batch,
            "max_drop": self.max_drop,
            "files": [
                {
                    "path": str(file.candidate.path),
                    "format": file.candidate.form.name,
                    "precision": file.candidate.precision,
                    "size": file.candidate.size,
                    score: file.metrics.score,
                    "latency_ms": file.speed.median,
                    "latency_p90_ms": file.speed.p90,
                    "images_per_second": file.speed.images_per_second,
                }
                for file in self.files
            ],
            "missing": self.missing,
            "recommended": None if self.chosen is None else str(self.chosen.candidate.path),
            "reason": self.reason(),
        }

    def reason(self) -> str:
        """Why that file, in a sentence."""
        unit, title = self.task.score_unit, self.task.score_title
        if self.chosen is None:
            return (
                f"no file stays within {self.max_drop:g} points of the checkpoint's {title} "
                f"{self.metrics.score:.2f}{unit}: allow more, or calibrate on more images"
            )
        good = _good(self.files, self.metrics, self.max_drop)
        slowest = max(file.speed.median for file in good)
        lost = self.metrics.score - self.chosen.metrics.score
        of_score = f"{lost:.2f} points below" if lost > 0 else "no worse than"
        return (
            f"of the {len(good)} files within {self.max_drop:g} points of {title} it is the fastest for one image: "
            f"{self.chosen.speed.median:.2f} ms, {slowest / self.chosen.speed.median:.1f} x as fast as the slowest of "
            f"them; {of_score} the checkpoint's {self.metrics.score:.2f}{unit}"
        )


_ALIKE = 1.05  # medians that are no further apart are one speed: the smaller file is taken


def compare(deployed: Deployment, runtime: Runtime, settings: Settings) -> Comparison:
    """Make the files of a checkpoint, measure them, and choose.

    Args:
        deployed: the checkpoint; its `config` says where images to compare on are.
        runtime: its configuration says where the validation images are.
        settings: what is made, where, and how it is measured.

    Raises:
        UserError: the weights, the images or what `settings` names are not fit.
        RunError: a file cannot be written.
    """
    paths.make_folder(settings.folder, "--out")
    made = make(deployed, runtime, settings)
    threads = settings.threads or len(os.sched_getaffinity(0))
    speeds = clock.take([candidate.path for candidate in made.candidates], threads, settings.batch, settings.seconds)
    files = [
        Measured(candidate, metrics, speed)
        for (candidate, metrics), speed in zip(made.candidates.items(), speeds, strict=True)
    ]
    return Comparison(
        task=tasks.of(runtime.config),
        weights=deployed.path,
        metrics=made.metrics,
        files=files,
        missing=made.missing,
        chosen=_chosen(files, made.metrics, settings.max_drop),
        max_drop=settings.max_drop,
        threads=threads,
        batch=settings.batch,
        machine=provenance.cpu(),
    )


def _good(files: Sequence[Measured], metrics: Metrics, max_drop: float) -> list[Measured]:
    """The files that lose no more of the score than they may."""
    return [file for file in files if keeps(file.metrics, metrics, max_drop)]


def _chosen(files: Sequence[Measured], metrics: Metrics, max_drop: float) -> Measured | None:
    """The fastest file for one image that keeps the score; of files that are as fast, the smallest."""
    good = _good(files, metrics, max_drop)
    if not good:
        return None
    fastest = min(file.speed.median for file in good)
    alike = [file for file in good if file.speed.median <= _ALIKE * fastest]
    return min(alike, key=lambda file: (file.candidate.size, file.speed.median))
