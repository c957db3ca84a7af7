"""Cells of training for integers that run our C++ operators: values and gradients are those of `models.quantized`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..models.quantized import KEPT, LEVELS, TINY, WEIGHT_LEVELS, Convolution, FakeQuantize
from .fused import Chain, floats

# How maps and weights are rounded, as C++ has it.
_MAPS, _WEIGHTS = (KEPT, TINY, LEVELS), (TINY, WEIGHT_LEVELS)


class NativeFakeQuantize(nn.Cell):
    """Maps, rounded within the range that they have had.

    Args:
        library: file of the C++ operators.
        quantize: what it stands for.
    """

    def __init__(self, library: Path, quantize: FakeQuantize) -> None:
        super().__init__(auto_prefix=False)
        self.moving_minimum, self.moving_maximum = quantize.moving_minimum, quantize.moving_maximum
        self.settings = Tensor(_MAPS, ms.float32)
        prefix = f"{library}:ghostnet_quantize"
        gradient = ops.Custom(f"{prefix}_gradient", lambda _, x, *others: (x,), floats(1), "aot")
        self.trained = ops.Custom(
            f"{prefix}_trained", lambda _, x, low, high: (x, low, high), floats(3), "aot", _trained_bprop(gradient)
        )
        # In evaluation, too: who explains an answer asks for the gradients of maps.
        self.evaluated = ops.Custom(prefix, lambda _, x, *others: (x,), floats(1), "aot", _evaluated_bprop(gradient))

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.evaluated(self.settings, x, self.moving_minimum, self.moving_maximum)[0]
        out, low, high = self.trained(self.settings, x, self.moving_minimum, self.moving_maximum)
        # The range is stored once the operator has read the old one.
        return ops.depend(out, (ops.assign(self.moving_minimum, low), ops.assign(self.moving_maximum, high)))


class NativeRoundedWeight(nn.Cell):
    """A weight, rounded for each output channel.

    Args:
        library: file of the C++ operators.
    """

    def __init__(self, library: Path) -> None:
        super().__init__()
        self.settings = Tensor(_WEIGHTS, ms.float32)
        self.operator = ops.Custom(
            f"{library}:ghostnet_quantize_weight", lambda _, weight: (weight,), floats(1), "aot", _straight_through
        )

    def construct(self, weight: Tensor) -> Tensor:
        return self.operator(self.settings, weight)[0]


class NativeRoundedBias(nn.Cell):
    """A bias, rounded to what a layer's products are multiples of. Evaluation only.

    Args:
        library: file of the C++ operators.
    """

    def __init__(self, library: Path) -> None:
        super().__init__()
        self.maps, self.weights = Tensor(_MAPS, ms.float32), Tensor(_WEIGHTS, ms.float32)
        function = f"{library}:ghostnet_quantize_bias"
        self.operator = ops.Custom(function, lambda _, __, bias, *others: (bias,), floats(1), "aot", _bias_bprop)

    def construct(self, bias: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return self.operator(self.maps, self.weights, bias, weight, low, high)[0]


class NativeDepthwise(nn.Cell):
    """A depthwise convolution with a weight that it is given.

    Args:
        library: file of the C++ operators.
        convolution: what it stands for.
    """

    def __init__(self, library: Path, convolution: Convolution) -> None:
        super().__init__()
        chain = Chain(library, depthwise=convolution.like[0])
        self.options, self.trained, self.evaluated = chain.options, chain.trained, chain.evaluated

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.training:
            return self.evaluated(self.options, x, weight)[0]
        return self.trained(self.options, x, weight)[0]


def _trained_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(settings, x, low, high, out, d_out):
        d_x = gradient(settings, x, d_out[0], out[1], out[2])[0]
        return ops.zeros_like(settings), d_x, ops.zeros_like(low), ops.zeros_like(high)

    return bprop


def _evaluated_bprop(gradient: ops.Custom) -> Callable[..., tuple[Any, ...]]:
    def bprop(settings, x, low, high, out, d_out):
        d_x = gradient(settings, x, d_out[0], low, high)[0]
        return ops.zeros_like(settings), d_x, ops.zeros_like(low), ops.zeros_like(high)

    return bprop


def _straight_through(settings, weight, out, d_out):
    return ops.zeros_like(settings), d_out[0]


def _bias_bprop(maps, weights, bias, weight, low, high, out, d_out):
    settings = (ops.zeros_like(maps), ops.zeros_like(weights))
    return (*settings, d_out[0], ops.zeros_like(weight), ops.zeros_like(low), ops.zeros_like(high))
