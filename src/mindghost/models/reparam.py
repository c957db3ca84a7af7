"""Re-parameterisation: the weights of a trained network -> those of an equal one with fewer layers.

Plain numpy, parameter dict -> parameter dict, so that it works on a file's weights as on a network's. RepVGG (Ding et
al., 2021, https://arxiv.org/abs/2101.03697) describes the arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of mindspore.nn.BatchNorm2d, as of torch.nn.BatchNorm2d.
EPSILON = 1e-5


class Branch(NamedTuple):
    """One of the branches whose sum is a layer.

    Attributes:
        convolution: name of its convolution; None where it takes the layer's input as it is.
        norm: name of the batch norm that ends it.
    """

    convolution: str | None
    norm: str


# What a parameter's name begins with -> the layer that it is a branch of, and branches of that layer. GhostNetV3's, and
# RepGhostNet's, whose convolution has the names of an ordinary one: the batch norm beside it tells.
_BRANCHED = (
    (r"(.+)\.rpr_(conv\.\d+|scale)\.", r"\1", ((r"\1.rpr_\2.conv", r"\1.rpr_\2.bn"),)),
    (r"(.+)\.rpr_skip\.", r"\1", ((None, r"\1.rpr_skip"),)),
    (
        r"(.+)\.fusion_bn\.(\d+)\.",
        r"\1.cheap_operation",
        ((r"\1.cheap_operation.0", r"\1.cheap_operation.1"), (None, r"\1.fusion_bn.\2")),
    ),
)


def branches(names: Iterable[str]) -> dict[str, list[Branch]]:
    """Name of each layer that is a sum of branches -> its branches.

    Args:
        names: of a network's parameters.
    """
    found: dict[str, dict[Branch, None]] = {}
    for name in names:
        for pattern, layer, parts in _BRANCHED:
            if match := re.match(pattern, name):
                of_layer = found.setdefault(match.expand(layer), {})
                for convolution, norm in parts:
                    of_layer[Branch(convolution and match.expand(convolution), match.expand(norm))] = None
    return {layer: list(of_layer) for layer, of_layer in found.items()}


def fold_batch_norm(
    kernel: NDArray[Any], gamma: NDArray[Any], beta: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel and bias, in float64, of the convolution that equals one without bias and a batch norm after it.

    Args:
        kernel: (out_channels, in_channels / groups, height, width).
        gamma, beta, mean, variance: of the batch norm in evaluation, (out_channels,) each.
    """
    scale = gamma / np.sqrt(variance.astype(np.float64) + EPSILON)
    return kernel * scale[:, None, None, None], beta - mean * scale


def fold(parameters: Mapping[str, NDArray[Any]], norms: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The parameters of a network without batch norms from those of one with them.

    Each convolution takes up the batch norm after it: `weight` changes, `bias` is new (or changes); the batch norm's
    parameters leave; the rest stays as it is.

    Args:
        parameters: of the network in evaluation.
        norms: name of a convolution -> name of the batch norm that alone reads its output.

    Raises:
        KeyError: a parameter of one of these layers is missing.
    """
    result = dict(parameters)
    for convolution, norm in norms.items():
        kernel = parameters[f"{convolution}.weight"]
        statistics = [result.pop(f"{norm}.{kind}") for kind in ("gamma", "beta", "moving_mean", "moving_variance")]
        weight, bias = fold_batch_norm(kernel, *statistics)
        if f"{convolution}.bias" in parameters:
            # The batch norm of a constant: a bias before it counts as a lower mean.
            gamma, beta, mean, variance = statistics
            _, bias = fold_batch_norm(kernel, gamma, beta, mean - parameters[f"{convolution}.bias"], variance)
        result[f"{convolution}.weight"], result[f"{convolution}.bias"] = (
            weight.astype(kernel.dtype),
            bias.astype(kernel.dtype),
        )
    return result


def fuse(parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The parameters of a network's fused form (`deploy=True`) from those of its training form.

    The branches of a layer P (GhostNetV3, RepGhostNet) become one convolution, `P.weight` and `P.bias`; the rest stays
    as it is.

    Raises:
        ValueError: there are no branches (fused already, or another network), or a branch lacks a parameter.
    """
    rest = dict(parameters)
    layers = branches(parameters)
    if not layers:
        raise ValueError("nothing to fuse: there are no branches among the weights; are they fused already?")
    fused = {}
    for layer, of_layer in layers.items():
        fused[f"{layer}.weight"], fused[f"{layer}.bias"] = _take_branches(rest, layer, of_layer)
    return rest | fused


def _take_branches(
    parameters: dict[str, NDArray[Any]], layer: str, of_layer: Iterable[Branch]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel and bias of the one convolution that equals the branches of a layer, which leave `parameters`."""

    def take(name: str) -> NDArray[Any]:
        if name not in parameters:
            raise ValueError(f"{name}: missing among the weights, and {layer} cannot be fused without it")
        return parameters.pop(name)

    kernels = {branch: take(f"{branch.convolution}.weight") for branch in of_layer if branch.convolution}
    if not kernels:
        raise ValueError(f"{layer}: no convolution is among its branches, and it cannot be fused without one")
    largest = max(kernels.values(), key=np.size)
    kernel, bias = np.zeros(largest.shape), np.zeros(len(largest))
    for branch in of_layer:
        own_kernel = _centred(kernels[branch], largest.shape) if branch in kernels else _identity(largest.shape)
        statistics = (take(f"{branch.norm}.{kind}") for kind in ("gamma", "beta", "moving_mean", "moving_variance"))
        folded = fold_batch_norm(own_kernel, *statistics)
        kernel, bias = kernel + folded[0], bias + folded[1]
    return kernel.astype(largest.dtype), bias.astype(largest.dtype)


def _centred(kernel: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A kernel in the middle of a larger one of zeros."""
    result = np.zeros(shape)
    top, left = (shape[2] - kernel.shape[2]) // 2, (shape[3] - kernel.shape[3]) // 2
    result[:, :, top : top + kernel.shape[2], left : left + kernel.shape[3]] = kernel
    return result


def _identity(shape: tuple[int, ...]) -> NDArray[Any]:
    """The kernel (out_channels, in_channels / groups, height, width) whose convolution gives its input."""
    result = np.zeros(shape)
    channel = np.arange(shape[0])
    result[channel, channel % shape[1], shape[2] // 2, shape[3] // 2] = 1
    return result
