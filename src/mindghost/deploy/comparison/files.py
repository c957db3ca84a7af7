"""Every file that can be made of a checkpoint here, each evaluated over the data path of `mindghost validate`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ... import tasks
from ...errors import UserError
from ...evaluate.evaluator import Evaluator
from ...inference import artifact, formats
from ...inference.deployment import Deployment
from ...inference.formats import Format
from ...inference.network import of_exported, open_network
from ...runtime import Runtime
from ...tasks.task import Metrics
from ..export import export
from ..quantize import QUANTIZERS, quantize
from ..quantize.search import Goal

log = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Settings:
    """What is made, where, and how it is measured.

    Attributes:
        folder: for the files.
        formats: their names (`inference.formats.NAMES`).
        calib_dir: images on which int8's ranges are measured; None makes no int8 and no float16.
        calib_images: how many of them.
        max_drop: points of the score that the recommended file may lose, and for which layers are left in float.
        threads: of each runtime; None for one a core.
        batch: images of the throughput.
        seconds: that the clock may take, in all.
        overwrite: replace files that are there, also those that were not made here.
    """

    folder: Path
    formats: Sequence[str] = formats.NAMES
    calib_dir: Path | None = None
    calib_images: int = 256
    max_drop: float = 1.0
    threads: int | None = None
    batch: int = 32
    seconds: float = 120.0
    overwrite: bool = False


@dataclass(frozen=True)
class Candidate:
    """A file that can be shipped.

    Attributes:
        path: the one that is named.
        form: its format.
        precision: "float32", "float16", or "int8" and how its scales were chosen.
        size: bytes, with the files that belong to it.
    """

    path: Path
    form: Format
    precision: str
    size: int


@dataclass
class Made:
    """What there is.

    Attributes:
        metrics: of the checkpoint.
        candidates: files, and their metrics.
        missing: format, or format and precision -> why there is none.
    """

    metrics: Metrics
    candidates: dict[Candidate, Metrics] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def leave_out(self, kind: str, error: UserError) -> None:
        """Note why there is none of a kind."""
        self.missing[kind] = str(error)
        log.info(f"{kind}: left out: {error}")


def make(deployed: Deployment, runtime: Runtime, settings: Settings) -> Made:
    """Write and evaluate the files of a checkpoint. Raises UserError where not one can be made."""
    split = tasks.of(runtime.config).open_split(runtime.config, "val", deployed.known_classes)
    evaluator = Evaluator(runtime, split, deployed.thresholds)
    log.info(f"{deployed.path}: evaluated on {len(split):,} images")
    made = Made(evaluator.outcomes(open_network(deployed, runtime.operators)).metrics())
    for kind in settings.formats:
        try:
            (file,) = export(deployed, [kind], settings.folder, overwrite=settings.overwrite)
        except UserError as error:
            # One runtime that is not here is no reason to do without the others.
            made.leave_out(kind, error)
            continue
        source = Candidate(file.path, formats.of(file.path), _precision(file.path), file.size)
        made.candidates |= _smaller(source, made, runtime, settings) or {
            source: evaluator.outcomes(of_exported(artifact.of_file(file.path))).metrics()
        }
    if not made.candidates:
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in made.missing.items())
        raise UserError(f"{deployed.path}: no file can be made of it here: {reasons}")
    return made


def _precision(path: Path) -> str:
    """Of an exported file: float32, but for one whose network was trained for integers."""
    return str(artifact.description_of(path).get("quantization", {"kind": "float32"})["kind"])


def _smaller(source: Candidate, made: Made, runtime: Runtime, settings: Settings) -> dict[Candidate, Metrics]:
    """A file in float32 and those that quantising makes of it; none where there is nothing to be made."""
    if settings.calib_dir is None or source.form not in QUANTIZERS or source.precision != "float32":
        return {}
    try:
        result = quantize(
            artifact.of_file(source.path),
            runtime,
            settings.calib_dir,
            settings.calib_images,
            Goal(settings.max_drop, anyway=True),
            float16=True,
            folder=settings.folder,
            overwrite=settings.overwrite,
            timed=False,
        )
    except UserError as error:
        made.leave_out(f"{source.form.name} int8", error)
        return {}
    others = {
        Candidate(path, source.form, variant.kind, variant.size): variant.metrics
        for path, variant in result.written.items()
    }
    return {source: result.tried[0].metrics, **others}
