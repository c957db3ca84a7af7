"""Validation of a weight file, or of an exported file, on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import build, deployment, inference, launch, runtime, weights_file
from .config import Config
from .data import dataset
from .epochs import Evaluator
from .errors import UserError


def validate(config: Config) -> dict[str, Any]:
    """Evaluate the weights of `ckpt_path` (or the published ones, with `pretrained`) on the validation split.

    The numbers are those of the in-training evaluation of the same file: same images, network and counts. An exported
    file (`.onnx`, `.mindir`) is run as it is, over the same images.

    Returns `model`, `ckpt_path`, `top_1`, `top_5` (percent; None with fewer than five classes), `loss` (nats),
    `num_samples`.

    Raises UserError: no weights given, a file that does not fit, or images that cannot be read.
    """
    if not config.ckpt_path and not config.pretrained:
        raise UserError("ckpt_path: needed, since random weights are never validated; give the weight file to validate")
    run_log = runtime.RunLog()
    try:
        run = runtime.init(config.replace(distribute=launch.detect().ranks > 1))
        config = run.config
        if config.ckpt_path:
            weights_file.check_exists(config.ckpt_path)
        exported = deployment.of_file(Path(config.ckpt_path)) if deployment.is_exported(config.ckpt_path) else None
        classes = exported.classes if exported else build.saved_classes(config.ckpt_path)
        samples = dataset.open_split(config, "val", classes)
        config = build.with_classes(config, samples.classes)
        if exported:
            evaluator = Evaluator(config, samples, run.ranks, inference.open_network(exported))
            path = exported.path
        else:
            evaluator = Evaluator(config, samples, run.ranks)
            loaded = build.load_weights(evaluator.network, config, fine_tune=False)
            runtime.log.info(str(loaded))
            path = loaded.path
        metrics = evaluator.evaluate(evaluator.network)
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
