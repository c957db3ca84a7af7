"""Validation of a weight file, or of an exported file, on its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore
from numpy.typing import NDArray

from .. import __version__, build, tasks
from ..config import Config
from ..data import dataset, transforms
from ..data.samples import Samples
from ..errors import UserError
from ..files import intact, paths
from ..inference import artifact, explain, published
from ..inference.deployment import Deployment
from ..inference.formats import KINDS, Network, is_exported
from ..inference.network import checked, of_cell, open_network
from ..parallel import replicas
from ..process import launch
from ..process.log import RunLog
from ..runs.files import colors_beside, temperature_beside, thresholds_beside
from ..runtime import Runtime
from ..tasks.task import Counts, Explain, Metrics, Outcomes
from . import batch
from . import predictions as predictions_file
from .evaluator import Evaluator, Sink, Tempered, counted
from .predictions import Predictions

log = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Validation:
    """The numbers of a weight file or an exported file.

    Attributes:
        model: name of the network.
        path: of the file.
        metrics: of the task, over the validation split.
        temperature: what logits are divided by before they become probabilities; None where nothing says.
        calibrated: the same numbers of the logits divided by it; None without it.
        in_mindcv_words: those of `metrics` as MindCV's `validate.py` prints them; empty where it has no words for them.
    """

    model: str
    path: str
    metrics: Metrics
    in_mindcv_words: Mapping[str, float] = field(default_factory=dict)
    temperature: float | None = None
    calibrated: Metrics | None = None

    def record(self) -> dict[str, Any]:
        """All of it as a JSON object: `model`, `ckpt_path` and the metrics by name (`Metrics.result`).

        With a temperature, it and what it changes of them: `temperature`, and by name with `calibrated_` before it.
        """
        found: dict[str, Any] = {"model": self.model, "ckpt_path": self.path, **self.metrics.result()}
        return found if self.calibrated is None else {**found, "temperature": self.temperature, **self._changed()}

    def _changed(self) -> dict[str, Any]:
        assert self.calibrated is not None
        before, after = self.metrics.result(), self.calibrated.result()
        return {f"calibrated_{name}": value for name, value in after.items() if value != before[name]}

    def lines(self) -> list[str]:
        """All of it for people: a sentence, and the line that readers of MindCV's output look for."""
        sentence = f"{self.model}: {self.metrics.summary()} over {self.metrics.num_samples:,} images"
        found = [sentence] if self.calibrated is None else [sentence, self._calibration_line()]
        return [*found, str(dict(self.in_mindcv_words))] if self.in_mindcv_words else found

    def _calibration_line(self) -> str:
        assert self.calibrated is not None
        before, after = self.metrics.result(), self.calibrated.result()
        error = "calibration_error"
        return (
            f"{self.model}: calibration error {before[error]:.2f} % of the logits as they are, {after[error]:.2f} % at "
            f"the temperature {self.temperature:.4g} (loss {after['loss']:.4f})"
        )


def validate(config: Config) -> Validation:
    """Evaluate the weights of `ckpt_path` (or the published ones, with `pretrained`) on the validation split.

    The numbers are those of the in-training evaluation of the same file: same images, network and counts (to the last
    bit with the same `native_ops`). An exported file (`inference.formats`) is run as it is, over the same images; a
    `config` that contradicts it is refused.

    With the keys `report` and `predictions`, rank 0 writes the report of the evaluation and what the network says of
    each image, too.

    Raises UserError: no weights given, a file that does not fit, images that cannot be read, or a folder that cannot
    take the report or the predictions; RunError: one of these that cannot be written after all.
    """
    if not config.ckpt_path and not config.pretrained:
        raise UserError("ckpt_path: needed, since random weights are never validated; give the weight file to validate")
    config.check_evaluation()
    run_log = RunLog()
    try:
        runtime = Runtime.start(config.replace(distribute=launch.detect().ranks > 1))
        exported = _exported(runtime)
        if exported:
            runtime = runtime.with_config(artifact.agreed(runtime.config, exported))
        runtime, samples = open_images(runtime, exported)
        runtime = batch.settled(runtime, len(samples), exported.batch if exported else None)
        for line in runtime.config.warnings(training=False):
            log.info(line)
        network, path = (open_network(exported), exported.path) if exported else of_weights(runtime)
        evaluator = Evaluator(runtime, samples, _thresholds(runtime, exported))
        predictions = _predictions(runtime, samples)
        temperature = _temperature(runtime, exported)
        _check_ranks(evaluator, path, temperature)
        # Their numbers are beside those of the logits as they are, whose loss is that of the training's evaluation.
        tempered: Counts | None = None
        also: Sink | None = predictions
        if temperature is not None:
            tempered = evaluator.task.counts(samples, evaluator.thresholds)
            also = Tempered(temperature, [tempered, *([predictions] if predictions else [])])
        outcomes = evaluator.outcomes(network, also)
        if predictions:
            _write(runtime, predictions, evaluator.batches.order_over_ranks)
        if runtime.config.report:
            precision = "that of the file" if exported else runtime.config.val_amp_level
            facts = _facts(runtime.config, samples, str(path), precision)
            if temperature is not None:
                facts["temperature"] = f"{temperature:.4g}, which none of the numbers and pictures below is made with"
            _report(runtime, outcomes, samples, facts, _explain(runtime, exported))
        calibrated = None if tempered is None else tempered.outcomes(runtime.ranks).metrics()
    finally:
        run_log.close()
    metrics = outcomes.metrics()
    words = tasks.of(runtime.config).in_mindcv_words(metrics)
    return Validation(runtime.config.model, str(path), metrics, words, temperature, calibrated)


def _exported(runtime: Runtime) -> Deployment | None:
    """What the exported file of `ckpt_path` is; None for weights.

    Whether a report and a file of predictions can be written is seen before.
    """
    config = runtime.config
    if config.ckpt_path:
        paths.check_file(config.ckpt_path, f"give a {KINDS} file")
    if config.report and runtime.ranks.main:
        tasks.of(config).report.prepare(Path(config.report), config.overwrite)
    if config.predictions and runtime.ranks.main:
        predictions_file.prepare(config)
    return artifact.of_file(Path(config.ckpt_path)) if is_exported(config.ckpt_path) else None


def open_images(runtime: Runtime, exported: Deployment | None) -> tuple[Runtime, Samples]:
    """The settled run, and the validation split with labels as the network has them."""
    config, task = runtime.config, tasks.of(runtime.config)
    names = exported.known_classes if exported else task.known_names(config.ckpt_path)
    if names is None and not exported and config.dataset == "imagenet" and not config.class_names:
        names = published.classes(config)
    samples = task.open_split(config, "val", names)
    if names is None and config.dataset == "imagenet" and not config.class_names:
        where = "the file has no names of classes" if exported else "no classes.json lies beside the weights"
        task.say_order(samples.classes, where)
    colors = exported.colors if exported else None
    if config.ckpt_path and not exported:
        colors = colors_beside(Path(config.ckpt_path), len(samples.classes))
    return runtime.with_classes(samples.classes), task.colored(samples, colors) if colors else samples


def _thresholds(runtime: Runtime, exported: Deployment | None) -> tuple[float, ...] | None:
    """The thresholds of the network's answers: those in an exported file, or beside weights; None where none are."""
    config = runtime.config
    if not tasks.of(config).has_thresholds:
        return None
    assert config.num_classes is not None  # the data has settled it
    found = exported.thresholds if exported else None
    if config.ckpt_path and not exported:
        found = thresholds_beside(Path(config.ckpt_path), config.num_classes)
    if found is None:
        log.info("no evaluation has left thresholds: F1 is at those that are best for these images")
    return found


def of_weights(runtime: Runtime) -> tuple[Network, Path]:
    """The network of a weight file, compiled, and the file."""
    cell, loaded = build.trained_network(runtime.config, runtime.operators)
    log.info(str(loaded))
    classes = runtime.config.num_classes
    assert classes is not None  # the data has settled it
    is_dense = tasks.of(runtime.config).is_dense
    form = build.for_plan(runtime.config, runtime.operators)
    return checked(of_cell(cell, runtime.graphs, form), loaded.path, classes, is_dense), loaded.path


def _temperature(runtime: Runtime, exported: Deployment | None) -> float | None:
    """What the logits are divided by, as an exported file or one beside weights says; None where none does."""
    config = runtime.config
    if not tasks.of(config).has_temperature:
        return None
    if exported:
        return exported.temperature
    return temperature_beside(Path(config.ckpt_path)) if config.ckpt_path else None


def _check_ranks(evaluator: Evaluator, path: Path, temperature: float | None) -> None:
    """Raise UserError, on all ranks, where one evaluates other weights or images than another."""
    ranks = evaluator.runtime.ranks
    if ranks.size == 1:
        return
    with paths.open_file(path, "give another file") as file:
        weights = intact.digest(file)
    told = {
        "validation images": evaluator.samples.told(),
        "weights": f"a file of sha256 {weights[:12]}",
        "thresholds": str(evaluator.thresholds),
        "temperature": str(temperature),
    }
    replicas.check_told(ranks, told, replicas.SAME_FILES)


def _predictions(runtime: Runtime, samples: Samples) -> Predictions | None:
    """What collects the rows of the key `predictions`; None without it."""
    config = runtime.config
    if not config.predictions:
        return None
    assert config.num_classes is not None  # the data has settled it
    return Predictions(tasks.of(config), samples, config.num_classes)


def _write(runtime: Runtime, predictions: Predictions, order: NDArray[Any]) -> None:
    """Rank 0 writes the predictions. Every rank has to call it."""
    rows = predictions.gathered(order, runtime.ranks)
    if runtime.ranks.main:
        output = predictions_file.prepare(runtime.config)
        output.write(predictions.content(output.path, rows))
        log.info(f"predictions: {output.path}")
    # As in `_report`.
    runtime.ranks.barrier()


def _explain(runtime: Runtime, exported: Deployment | None) -> Explain | None:
    """What draws where the network saw a class; None for a file without gradients, and a task without use for it."""
    config = runtime.config
    if exported or not tasks.of(config).explains:
        return None
    return explain.drawn(config, runtime.operators)


def _report(
    runtime: Runtime, outcomes: Outcomes, samples: Samples, facts: Mapping[str, str], explained: Explain | None
) -> None:
    """Rank 0 writes the report. Every rank has to call it."""
    if runtime.ranks.main:
        report, folder = tasks.of(runtime.config).report, Path(runtime.config.report)
        # A task without maps knows no such argument.
        extra = [] if explained is None else [explained]
        report.write(folder, outcomes, samples, facts, *extra)
        log.info(f"report: {folder / report.PAGE}")
    # No rank leaves before rank 0 has written: the launcher ends all when one has left.
    runtime.ranks.barrier()


def _facts(config: Config, samples: Samples, weights: str, precision: str) -> dict[str, str]:
    """What a report says about the evaluation beside its numbers."""
    return {
        "model": config.model,
        "weights": weights,
        "images": f"{dataset.place_of(config, 'val')}, {len(samples.classes)} classes",
        "network input": " x ".join(map(str, (config.in_channels, *transforms.input_size(config)))),
        "precision": precision,
        "counted": counted(config),
        "made with": f"mindghost {__version__}, MindSpore {mindspore.__version__}",
    }
