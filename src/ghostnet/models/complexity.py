"""How large a network is, counted by running its own layers."""

import numpy as np
from mindspore import Tensor, nn


def trainable_parameters(network: nn.Cell) -> int:
    """Number of trainable values; batch-norm statistics are not among them."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_macs(network: nn.Cell, height: int = 224, width: int = 224, in_channels: int = 3) -> int:
    """Multiply-accumulates of every convolution and dense layer for one image of `in_channels` x height x width.

    Runs the network once in evaluation mode; needs PyNative mode, where forward hooks see each layer's output.
    """
    total = 0

    def count(cell: nn.Cell, _inputs: tuple, output: Tensor) -> None:
        nonlocal total
        # Each output value is one dot product with one filter: the weight's size over its output channels.
        total += output.size // output.shape[0] * (cell.weight.size // cell.weight.shape[0])

    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, (nn.Conv2d, nn.Dense))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        network.set_train(False)
        network(Tensor(np.zeros((1, in_channels, height, width), np.float32)))
    finally:
        for hook in hooks:
            hook.remove()
    return total
