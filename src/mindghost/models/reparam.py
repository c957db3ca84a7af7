"""Re-parameterisation: the weights of a trained network -> those of an equal one with fewer layers.

Plain numpy, parameter dict -> parameter dict, so that it works on a file's weights as on a network's. RepVGG (Ding et
al., 2021, https://arxiv.org/abs/2101.03697) describes the arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of mindspore.nn.BatchNorm2d, as of torch.nn.BatchNorm2d.
EPSILON = 1e-5

_FIRST_KERNEL = ".rpr_conv.0.conv.weight"
_BRANCH = re.compile(r"^.+\.rpr_(conv\.\d+|scale|skip)(?=\.)")


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
    """The parameters of GhostNetV3's fused form (`deploy=True`) from those of its training form.

    The branches `P.rpr_*` of a layer P become one convolution, `P.weight` and `P.bias`; the rest stays as it is.

    Raises:
        ValueError: there are no branches (fused already, or another network), or a branch lacks a parameter.
    """
    rest = dict(parameters)
    layers = [name.removesuffix(_FIRST_KERNEL) for name in parameters if name.endswith(_FIRST_KERNEL)]
    if not layers:
        raise ValueError(f"nothing to fuse: no parameter ends with {_FIRST_KERNEL}; are the weights fused already?")
    fused = {}
    for layer in layers:
        fused[f"{layer}.weight"], fused[f"{layer}.bias"] = _take_branches(rest, layer)
    return rest | fused


def _take_branches(parameters: dict[str, NDArray[Any]], layer: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel and bias of the one convolution that equals the branches of a layer, which leave `parameters`."""

    def take(name: str) -> NDArray[Any]:
        if name not in parameters:
            raise ValueError(f"{name}: missing among the weights, and {layer} cannot be fused without it")
        return parameters.pop(name)

    first = parameters[layer + _FIRST_KERNEL]
    kernel, bias = np.zeros(first.shape), np.zeros(len(first))
    for branch in {name: None for name in map(_branch_of, parameters) if name.startswith(f"{layer}.rpr_")}:
        skip = branch.endswith(".rpr_skip")
        own_kernel = _identity(first.shape) if skip else _centred(take(f"{branch}.conv.weight"), first.shape)
        norm = branch if skip else f"{branch}.bn"
        statistics = (take(f"{norm}.{kind}") for kind in ("gamma", "beta", "moving_mean", "moving_variance"))
        folded = fold_batch_norm(own_kernel, *statistics)
        kernel, bias = kernel + folded[0], bias + folded[1]
    return kernel.astype(first.dtype), bias.astype(first.dtype)


def _branch_of(name: str) -> str:
    """`P.rpr_conv.1` of `P.rpr_conv.1.bn.gamma`; empty for a parameter of no branch."""
    match = _BRANCH.match(name)
    return match.group() if match else ""


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
