"""A weight file or an exported file -> a function of images: MindSpore or ONNX Runtime behind one face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from . import build, deployment
from .deployment import Deployment
from .errors import UserError

# Images (N, channels, height, width) float32 -> logits (N, classes) float32, N any number.
Network = Callable[[np.ndarray], np.ndarray]


def open_network(deployed: Deployment) -> Network:
    """The network of a file. Raises UserError where the file is damaged or does not fit its description."""
    if not deployed.exported:
        network = build.evaluation_network(deployed.config)
        build.load_weights(network, deployed.config, fine_tune=False)
        return of_cell(network)
    if deployed.path.suffix.lower() == ".onnx":
        run = of_onnx(deployed.path)
    else:
        run = of_mindir(deployed.path)
    return run if deployed.batch is None else in_batches(run, deployed.batch)


def of_cell(network: nn.Cell) -> Network:
    """A network of MindSpore, in evaluation mode."""
    network.set_train(False)
    return lambda images: network(Tensor(images)).asnumpy()


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
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            parts.append(run(filled)[: len(part)])
        return np.concatenate(parts)

    return logits
