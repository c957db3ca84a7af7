"""Validation of a weight file, or of an exported file, on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore

from . import __version__, build, deployment, inference, launch, report, runtime, weights_file
from .config import Config
from .data import dataset, transforms
from .errors import UserError
from .evaluate import Evaluator, counted, of_cell
from .graph_cache import GraphCache


def validate(config: Config) -> dict[str, Any]:
    """Evaluate the weights of `ckpt_path` (or the published ones, with `pretrained`) on the validation split.

    The numbers are those of the in-training evaluation of the same file: same images, network and counts (to the last
    bit with the same `native_ops`). An exported file (`.onnx`, `.mindir`) is run as it is, over the same images.

    With the key `report`, rank 0 writes the report of the evaluation, too.

    Returns `model`, `ckpt_path`, `top_1`, `top_5` (percent; None with fewer than five classes), `loss` (nats),
    `num_samples`.

    Raises UserError: no weights given, a file that does not fit, images that cannot be read, or a folder that cannot
    take the report; RunError: a report that cannot be written after all.
    """
    if not config.ckpt_path and not config.pretrained:
        raise UserError("ckpt_path: needed, since random weights are never validated; give the weight file to validate")
    run_log = runtime.RunLog()
    try:
        run = runtime.init(config.replace(distribute=launch.detect().ranks > 1))
        config = run.config
        if config.ckpt_path:
            weights_file.check_exists(config.ckpt_path)
        if config.report and run.ranks.main:
            report.prepare(Path(config.report), config.overwrite)
        exported = deployment.of_file(Path(config.ckpt_path)) if deployment.is_exported(config.ckpt_path) else None
        classes = exported.classes if exported else build.saved_classes(config.ckpt_path)
        samples = dataset.open_split(config, "val", classes)
        run = run.with_classes(samples.classes)
        config = run.config
        if exported:
            network, path = inference.open_network(exported), exported.path
        else:
            cell = build.evaluation_network(config, build.native_operators(config, run.device, run.threads))
            loaded = build.load_weights(cell, config, fine_tune=False)
            runtime.log.info(str(loaded))
            network, path = of_cell(cell, GraphCache(config, run.device, run.ranks)), loaded.path
        outcomes = Evaluator(config, samples, run.ranks).outcomes(network)
        metrics = outcomes.metrics()
        if config.report:
            if run.ranks.main:
                report.write(Path(config.report), outcomes, samples, _facts(config, samples, str(path)))
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


def _facts(config: Config, samples: dataset.Samples, weights: str) -> dict[str, str]:
    """What a report says about the evaluation beside its numbers."""
    return {
        "model": config.model,
        "weights": weights,
        "images": f"{Path(config.data_dir) / config.val_split}, {len(samples.classes)} classes",
        "network input": " x ".join(map(str, (config.in_channels, *transforms.input_size(config)))),
        "precision": config.val_amp_level,
        "counted": counted(config),
        "made with": f"ghostnet {__version__}, MindSpore {mindspore.__version__}",
    }
