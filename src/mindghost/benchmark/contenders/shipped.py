"""The files that people ship, made of the weights that all contenders share."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from mindghost.deploy import export
from mindghost.deploy.quantize import QUANTIZERS
from mindghost.deploy.writers import WRITERS
from mindghost.errors import UserError
from mindghost.inference import artifact, formats
from mindghost.inference.deployment import Deployment

from .job import Job
from .recipe import FILES, REASONS, WEIGHTS, task_of

# Images on which int8's ranges are measured: noise, since the weights are fresh, and only the speed counts.
_CALIBRATED = 16


def write(job: Job, kinds: Collection[str]) -> None:
    """Write the files of some kinds (`recipe.FILES`) into the job's folder, and why there is none of the others."""
    folder, deployed = Path(job.folder), _deployed(job)
    reasons: dict[str, str] = {}
    for form in dict.fromkeys(kind.split()[0] for kind in kinds):
        integers = f"{form} int8"
        asked = [kind for kind in (form, integers) if kind in kinds]
        try:
            _check(form)
            export.export(deployed, (form,))
            if integers in asked:
                _quantize(folder / FILES[form], folder / FILES[integers], job)
        except UserError as error:
            reasons |= {kind: str(error) for kind in asked if not (folder / FILES[kind]).exists()}
    (folder / REASONS).write_text(json.dumps(reasons), encoding="utf-8")


def _deployed(job: Job) -> Deployment:
    weights = Path(job.folder, WEIGHTS)
    recipe = weights.with_name("recipe.yaml")
    values = {"task": task_of(job), "model": job.model, "num_classes": job.num_classes, "image_resize": job.image_size}
    recipe.write_text("".join(f"{key}: {value}\n" for key, value in values.items()), encoding="utf-8")
    return replace(artifact.of_file(weights, recipe), classes=tuple(map(str, range(job.num_classes))))


def _check(form: str) -> None:
    """Raise UserError where a library of a format is missing, or its converter, which a benchmark does not install."""
    writer = WRITERS[form]
    missing = next((name for name in writer.libraries if importlib.util.find_spec(name) is None), None)
    if missing:
        raise UserError(f"not installed: {missing}")
    if writer.tool and not writer.tool.installed:
        raise UserError(f"not installed: {writer.tool}; `mindghost export --format {form}` brings it")


def _quantize(source: Path, target: Path, job: Job) -> None:
    """An int8 file, as `mindghost quantize` makes one. Raises UserError where its library is missing."""
    form = formats.of(source)
    quantizer = QUANTIZERS[form](artifact.of_file(source))
    shape = (_CALIBRATED, 3, job.image_size, job.image_size)
    quantizer.calibrate(np.random.default_rng(2).standard_normal(shape).astype(np.float32))
    contents = quantizer.int8(quantizer.modes[-1], quantizer.layers)
    for part, content in zip(form.parts(target), contents, strict=True):
        part.write_bytes(content)
