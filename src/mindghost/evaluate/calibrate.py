"""The temperature of a weight file: fitted to its logits of the validation split, and kept beside it.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..config import Config
from ..errors import UserError
from ..files import intact, json_text, outputs, paths
from ..files.lock import FolderLock
from ..files.outputs import Output
from ..inference.formats import is_exported
from ..inference.network import divided
from ..process.log import RunLog
from ..runs.files import TEMPERATURE_KEY, RunFiles
from ..runtime import Runtime
from ..tasks.task import Metrics
from . import batch
from .evaluator import Evaluator
from .validate import of_weights, open_images

log = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Calibrated:
    """What a calibration found.

    Attributes:
        weights: the file whose logits they are.
        file: where the temperature is kept.
        temperature: what they are divided by.
        before, after: the numbers of the validation split, with the logits as they are and divided.
    """

    weights: Path
    file: Path
    temperature: float
    before: Metrics
    after: Metrics

    def record(self) -> dict[str, Any]:
        """All of it as a JSON object, which is what `file` holds."""
        before, after = self.before.result(), self.after.result()
        changed = {name: {"before": before[name], "after": value} for name, value in after.items() if name in _CHANGE}
        return {TEMPERATURE_KEY: self.temperature, "images": self.before.num_samples, **changed}


# What a temperature changes of an evaluation; all else stays as it is.
_CHANGE = ("loss", "calibration_error")
# Temperatures of networks that were trained, on images that tell.
_USUAL = (0.1, 10.0)


class _Logits:
    """Keeps what a network says of the samples."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, outputs: NDArray[Any], labels: NDArray[Any]) -> None:
        """Keep one batch."""
        self._parts.append((outputs, labels))

    def all(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Outputs (N, classes) and labels (N,)."""
        outputs, labels = zip(*self._parts, strict=True)
        return np.concatenate(outputs), np.concatenate(labels)


def calibrate(config: Config) -> Calibrated:
    """Fit the temperature of the weights of `ckpt_path` to the validation split, and write it beside them.

    It is that of the logits of each image alone, which `predict` gives: `eval_mirror` is not heeded. A temperature that
    was found before is replaced.

    Raises UserError for an exported file, for a task without a temperature, where the images or the weights cannot be
    read, a run is going on in the folder, or the file cannot be written; RunError where the disk is full.
    """
    weights = Path(config.ckpt_path)
    if is_exported(weights):
        raise UserError(
            f"ckpt_path: {weights} is an exported file; calibrate the checkpoint that it was made of, and export again"
        )
    task = tasks.of(config)
    if not task.has_temperature:
        raise UserError(
            f"task {task.name}: a temperature is for the probabilities of one class an image (task classification); "
            "nothing was written"
        )
    output = Output(RunFiles.temperature(weights), "", outputs.json_with(TEMPERATURE_KEY))
    output.check()
    lock = FolderLock(weights.parent, "calibrate")
    run_log = RunLog()
    try:
        _keep_trainings_out(lock)
        runtime, samples = open_images(Runtime.start(config.replace(eval_mirror=False, distribute=False)), None)
        runtime = batch.settled(runtime, len(samples))
        network, path = of_weights(runtime)
        kept = _Logits()
        before = Evaluator(runtime, samples).outcomes(network, kept).metrics()
        logits, labels = kept.all()
        temperature = task.temperature(logits, labels)
        counts = task.counts(samples)
        counts.add(divided(logits, temperature), labels)
        found = Calibrated(path, output.path, temperature, before, counts.outcomes().metrics())
        _warn(found)
        output.check()
        intact.write_atomically(output.path, json_text.dumps(found.record(), indent=1).encode())
    finally:
        lock.release()
        run_log.close()
    return found


def _keep_trainings_out(lock: FolderLock) -> None:
    """Take the lock of a run's folder. Weights in any other folder are replaced by no training."""
    if not paths.exists(lock.file):
        return
    try:
        lock.take()
    except OSError as error:
        raise paths.not_writable(lock.file.parent, lock.key, error) from error


def _warn(found: Calibrated) -> None:
    """Say where a fit says little."""
    if not _USUAL[0] <= found.temperature <= _USUAL[1]:
        log.warning(
            f"a temperature of {found.temperature:.4g} is far from 1: nearly all answers are right, or they say "
            "nothing; more images would tell"
        )
