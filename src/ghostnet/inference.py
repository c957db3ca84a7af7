"""A weight file or an exported file -> a function of images: MindSpore or ONNX Runtime behind one face."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from . import build, deployment, intact_files
from .deployment import Deployment
from .errors import UserError
from .evaluate import Network, filled, of_cell


def open_network(deployed: Deployment, operators: Path | None = None) -> Network:
    """The network of a file; weights run on our `build.native_operators`, if they are given.

    Raises UserError where the file is damaged or does not fit its description.
    """
    if not deployed.exported:
        network = build.evaluation_network(deployed.config, operators)
        build.load_weights(network, deployed.config, fine_tune=False)
        return of_cell(network)
    if deployed.path.suffix.lower() == ".onnx":
        run = of_onnx(deployed.path)
    else:
        run = of_mindir(deployed.path)
    return run if deployed.batch is None else in_batches(run, deployed.batch)


def of_onnx(path: Path, threads: int = 0) -> Network:
    """An ONNX file, run by ONNX Runtime on the CPU with some threads (0: one a core)."""
    session = deployment.onnx_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def of_mindir(path: Path) -> Network:
    """A MindIR file, run by MindSpore in graph mode: the first call of each batch size compiles it."""
    cell = mindir_cell(path)

    def run(images: np.ndarray) -> np.ndarray:
        mode = ms.get_context("mode")
        ms.set_context(mode=ms.GRAPH_MODE)
        try:
            return cell(Tensor(images)).asnumpy()
        finally:
            ms.set_context(mode=mode)

    return run


def mindir_cell(path: Path) -> nn.GraphCell:
    """What a MindIR file holds; raises UserError where it is damaged. It compiles to a graph of its own only."""
    intact_files.read_intact(path)  # the loader takes other numbers for what they are, and dies of other bytes
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: MindSpore cannot load it ({reason}); export it again") from error


def in_batches(run: Network, size: int) -> Network:
    """A network that takes `size` images at once, made one that takes any number: copies of the last fill up."""

    def logits(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            parts.append(run(filled(part, size))[: len(part)])
        return np.concatenate(parts)

    return logits
