"""Validation of a weight file, or of an exported file, on its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore

from .. import __version__, build, runtime
from ..config import Config
from ..data import dataset, transforms
from ..errors import UserError
from ..files import paths
from ..graph_cache import GraphCache
from ..inference import artifact
from ..inference.exported import is_exported
from ..inference.network import Network, checked, of_cell, open_network
from ..ops import library
from ..process import launch, log
from ..tasks.classification import names as class_names
from . import report
from .evaluator import Evaluator, counted


def validate(config: Config) -> dict[str, Any]:
    """Evaluate the weights of `ckpt_path` (or the published ones, with `pretrained`) on the validation split.

    The numbers are those of the in-training evaluation of the same file: same images, network and counts (to the last
    bit with the same `native_ops`). An exported file (`.onnx`, `.mindir`) is run as it is, over the same images; a
    `config` that contradicts it is refused.

    With the key `report`, rank 0 writes the report of the evaluation, too.

    Returns `model`, `ckpt_path`, `top_1`, `top_5` (percent; None with fewer than five classes), `loss` (nats),
    `num_samples`.

    Raises UserError: no weights given, a file that does not fit, images that cannot be read, or a folder that cannot
    take the report; RunError: a report that cannot be written after all.
    """
    if not config.ckpt_path and not config.pretrained:
        raise UserError("ckpt_path: needed, since random weights are never validated; give the weight file to validate")
    config.check_evaluation()
    run_log = log.RunLog()
    try:
        run = runtime.init(config.replace(distribute=launch.detect().ranks > 1))
        config = run.config
        if config.ckpt_path:
            paths.check_file(config.ckpt_path, "give a .ckpt, .safetensors, .onnx or .mindir file")
        if config.report and run.ranks.main:
            report.prepare(Path(config.report), config.overwrite)
        exported = artifact.of_file(Path(config.ckpt_path)) if is_exported(config.ckpt_path) else None
        if exported:
            run = replace(run, config=artifact.agreed(config, exported))
            config = run.config
        classes = exported.known_classes if exported else class_names.saved_classes(config.ckpt_path)
        samples = dataset.open_split(config, "val", classes)
        if classes is None and config.dataset == "imagenet":
            where = "the file has no names of classes" if exported else "no classes.json lies beside the weights"
            class_names.say_order(samples.classes, where)
        run = run.with_classes(samples.classes)
        config = run.config
        for line in config.warnings(training=False):
            runtime.log.info(line)
        network, path = (open_network(exported), exported.path) if exported else _of_weights(run)
        outcomes = Evaluator(config, samples, run.ranks).outcomes(network)
        metrics = outcomes.metrics()
        if config.report:
            if run.ranks.main:
                precision = "that of the file" if exported else config.val_amp_level
                facts = _facts(config, samples, str(path), precision)
                report.write(Path(config.report), outcomes, samples, facts)
                runtime.log.info(f"report: {Path(config.report) / report.PAGE}")
            # No rank leaves before rank 0 has written: the launcher ends all when one has left.
            run.ranks.barrier()
    finally:
        run_log.close()
    return {
        "model": config.model,
        "ckpt_path": str(path),
        "top_1": metrics.top_1,
        "top_5": metrics.top_5,
        "loss": metrics.loss,
        "num_samples": metrics.num_samples,
    }


def _of_weights(run: runtime.Runtime) -> tuple[Network, Path]:
    """The network of a weight file, compiled, and the file."""
    config = run.config
    cell, loaded = build.trained_network(config, library.native_operators(config, run.device, run.threads))
    runtime.log.info(str(loaded))
    network = of_cell(cell, GraphCache(config, run.device, run.ranks))
    return checked(network, loaded.path, config.num_classes), loaded.path


def _facts(config: Config, samples: dataset.Samples, weights: str, precision: str) -> dict[str, str]:
    """What a report says about the evaluation beside its numbers."""
    return {
        "model": config.model,
        "weights": weights,
        "images": f"{Path(config.data_dir) / config.val_split}, {len(samples.classes)} classes",
        "network input": " x ".join(map(str, (config.in_channels, *transforms.input_size(config)))),
        "precision": precision,
        "counted": counted(config),
        "made with": f"mindghost {__version__}, MindSpore {mindspore.__version__}",
    }
