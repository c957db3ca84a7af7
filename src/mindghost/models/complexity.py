"""How large a network is, counted by running its own layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn


@dataclass(frozen=True)
class Complexity:
    """Size of a network and cost of one image.

    Attributes:
        parameters: trainable values.
        values: trainable values and batch-norm statistics: all that a weight file holds.
        macs: multiply-accumulates of convolutions, transposed ones among them, and dense layers.
        activations: elements of the outputs of these layers, as fvcore and timm's tables count them.
    """

    parameters: int
    values: int
    macs: int
    activations: int


def complexity(network: nn.Cell, height: int = 224, width: int = 224, in_channels: int = 3) -> Complexity:
    """Count a network for one image of `in_channels` x height x width.

    Runs it once in evaluation mode, in PyNative mode, where forward hooks see each layer's output.
    """
    macs = activations = 0

    def count(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, activations
        elements = output.size // output.shape[0]
        activations += elements
        # Each output value is one dot product with one filter: the weight's size over its output channels. Each value
        # that goes into a transposed convolution is multiplied with one filter.
        factors = inputs[0].size // inputs[0].shape[0] if isinstance(cell, nn.Conv2dTranspose) else elements
        macs += factors * (cell.weight.size // cell.weight.shape[0])

    kinds = (nn.Conv2d, nn.Conv2dTranspose, nn.Dense)
    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, kinds)]
    with forward_hooks(layers, count):
        run(network, (in_channels, height, width))
    return Complexity(trainable_parameters(network), sum(p.size for p in network.get_parameters()), macs, activations)


def smallest_norm(network: nn.Cell, image: tuple[int, int, int]) -> int | None:
    """Of how many values of one image of this shape the smallest batch norm takes mean and variance in training.

    None where no batch norm does. Runs the network once, in evaluation mode.
    """
    found: list[int] = []

    def note(_cell: nn.Cell, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(math.prod(output.shape[2:]))

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [
        cell
        for _, cell in network.cells_and_names()
        if isinstance(cell, kinds) and cell.use_batch_statistics is not False
    ]
    with forward_hooks(norms, note):
        run(network, image)
    return min(found, default=None)


def trainable_parameters(network: nn.Cell) -> int:
    """Number of trainable values; batch-norm statistics are not among them."""
    return sum(parameter.size for parameter in network.trainable_params())


@contextmanager
def forward_hooks(cells: list[nn.Cell], hook: Callable[[nn.Cell, tuple[Tensor, ...], Tensor], None]) -> Iterator[None]:
    """Have `hook(cell, inputs, output)` called after each of `cells` ran in PyNative mode, inside of `with`."""
    handles = [cell.register_forward_hook(hook) for cell in cells]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(network: nn.Cell, images: Tensor | tuple[int, int, int]) -> Tensor:
    """The output of a network for images, or a black one of that shape, in evaluation and PyNative mode.

    Both are as they were afterwards.
    """
    if isinstance(images, tuple):
        images = Tensor(np.zeros((1, *images), np.float32))
    mode, training = ms.get_context("mode"), network.training
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network.set_train(False)
    try:
        return network(images)
    finally:
        network.set_train(training)
        ms.set_context(mode=mode)
