"""An ONNX file of integers, taken apart: the network in numbers, and what its maps and weights are rounded to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..onnx_sizes import constants_of

# LiteRT's integers are signed: those of the training, less this.
_SIGN = 128


@dataclass(frozen=True)
class Weight:
    """A layer's weight.

    Attributes:
        integers: int8, as ONNX has its axes.
        steps: what one of them stands for, of each output channel, float32.
    """

    integers: NDArray[np.int8]
    steps: NDArray[np.float32]


@dataclass(frozen=True)
class Rounding:
    """How a map becomes integers.

    Attributes:
        map: its name in the ONNX file.
        step: what one integer stands for.
        zero: the integer, of -128 to 127, that stands for 0.
    """

    map: str
    step: np.float32
    zero: int


@dataclass(frozen=True)
class Plain:
    """An ONNX file of integers, without them.

    Attributes:
        model: of numbers; nothing is rounded but the weights.
        roundings: what the file had for maps, in its order.
        weights: what it had for weights.
    """

    model: onnx.ModelProto
    roundings: Sequence[Rounding]
    weights: Sequence[Weight]


def plain(model: onnx.ModelProto) -> Plain:
    """An ONNX file that `deploy.integers` has made, taken apart. It is changed."""
    graph = model.graph
    constants = {name: numpy_helper.to_array(entry) for name, entry in constants_of(graph).items()}
    source: dict[str, str] = {}  # of a map that is rounded -> the map before
    roundings, weights, nodes = [], [], []
    for node in graph.node:
        names = [source.get(name, name) for name in node.input]
        if node.op_type == "QuantizeLinear":
            step, zero = (constants[name] for name in names[1:])
            roundings.append(Rounding(names[0], np.float32(step), int(zero) - _SIGN))
            source[node.output[0]] = names[0]
        elif node.op_type == "DequantizeLinear" and names[0] not in constants:
            source[node.output[0]] = names[0]
        elif node.op_type == "DequantizeLinear":
            integers, steps = (constants[name] for name in names[:2])
            if integers.dtype == np.int8:
                weights.append(Weight(integers, steps))
            numbers = (integers * steps.reshape(-1, *[1] * (integers.ndim - 1))).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(numbers, node.output[0]))
        else:
            node.input[:] = names
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return Plain(model, roundings, weights)
