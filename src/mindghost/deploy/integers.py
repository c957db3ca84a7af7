"""A network that was trained for 8-bit integers -> an ONNX file of these integers (QDQ form).

MindSpore's exporter knows no integers: the network is written with plain layers whose weights are rounded, and with a
mark in the place of each rounding of a map. Then the file's marks become pairs of QuantizeLinear and DequantizeLinear,
and its weights the integers that they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np
import onnx
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..models.parameters import assign
from ..models.quantized import FakeQuantize, QuantizedConv2d, QuantizedLayer, scale_and_zero, weight_scale
from ..models.surgery import convolution_like, name_of, named, replace_cells
from .onnx_sizes import constants_of

_MARK = "quantized"


@dataclass(frozen=True)
class Integers:
    """What the integers of a network stand for.

    Attributes:
        maps: name of a mark -> what one step is (float32), and the integer that 0 is.
        weights: name of a weight -> what one step is, of each output channel, (channels,) float32.
    """

    maps: dict[str, tuple[NDArray[Any], int]] = field(default_factory=dict)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)


class _Marked(nn.Cell):
    """In the place of a `FakeQuantize`: the addition of 0, under a name that no other one has."""

    def __init__(self, rounding: FakeQuantize) -> None:
        super().__init__()
        place = rounding.moving_minimum.name.rpartition(".")[0]
        self.mark = Parameter(Tensor([0], ms.float32), name=f"{place}.{_MARK}", requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.mark


class _Plain(nn.Cell):
    """In the place of a layer with rounded weights: what rounds its input, and a layer in float."""

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__(auto_prefix=False)
        self.input, self.layer = layer.input, _plain(layer)

    def construct(self, x: Tensor) -> Tensor:
        return self.layer(self.input(x))


@contextmanager
def marked(network: nn.Cell) -> Iterator[Integers]:
    """Inside of `with`, a network trained for integers is of operators that MindSpore's ONNX exporter knows.

    Gives what `as_integers` needs; nothing is in it for a network that is in float.
    """
    cells = [cell for _, cell in network.cells_and_names()]
    layers = [(cell, _Plain(cell)) for cell in cells if isinstance(cell, QuantizedLayer)]
    maps = [(cell, _Marked(cell)) for cell in cells if isinstance(cell, FakeQuantize)]
    found = Integers(
        {mark.mark.name: _levels(cell) for cell, mark in maps},
        {cell.weight.name: weight_scale(cell.weight).asnumpy().reshape(-1) for cell, _ in layers},
    )
    # Layers first: what rounds their input is a part of their stand-ins, too.
    for pairs in (layers, maps):
        replace_cells(network, {id(old): new for old, new in pairs})
    try:
        yield found
    finally:
        for pairs in (maps, layers):
            replace_cells(network, {id(new): old for old, new in pairs})


def _levels(cell: FakeQuantize) -> tuple[NDArray[Any], int]:
    scale, zero = scale_and_zero(cell.moving_minimum, cell.moving_maximum)
    return scale.asnumpy().reshape(()), int(zero.asnumpy().item())


def _plain(cell: QuantizedLayer) -> nn.Cell:
    """A layer in float with rounded weights."""
    biased = cell.bias is not None
    if isinstance(cell, QuantizedConv2d):
        plain: nn.Cell = convolution_like(cell.convolution.like[0], cell.out_channels, cell.in_channels, biased)
    else:
        plain = nn.Dense(cell.in_channels, cell.out_channels, has_bias=biased)
    named(plain, name_of(cell))
    assign(plain.weight, cell.rounded_weight(cell.weight).asnumpy())
    if biased:
        assign(plain.bias, cell.rounded_bias().asnumpy())
    return plain


def as_integers(model: onnx.ModelProto, integers: Integers) -> None:
    """Have an ONNX file compute in integers what it has marks for. Changes it."""
    graph = model.graph
    constants = constants_of(graph)
    nodes: list[onnx.NodeProto] = []
    steps: dict[str, NDArray[Any]] = {}  # of the maps that are rounded, by their names
    for node in graph.node:
        mark = next((name for name in node.input if name in integers.maps), None)
        if mark is not None:
            scale, zero = integers.maps[mark]
            steps[node.output[0]] = scale
            nodes += _rounding(graph, node, mark, scale, zero)
            continue
        scales = next((integers.weights[name] for name in node.input if name in integers.weights), None)
        if scales is not None:
            names = list(node.input)
            made = [_integer(graph, constants[names[1]], np.int8, scales)]
            if len(names) > 2 and names[0] in steps:
                made.append(_integer(graph, constants[names[2]], np.int32, scales * steps[names[0]]))
            node.input[1 : 1 + len(made)] = [each.output[0] for each in made]
            nodes += made
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _rounding(
    graph: onnx.GraphProto, node: onnx.NodeProto, mark: str, scale: NDArray[Any], zero: int
) -> list[onnx.NodeProto]:
    """What takes the place of a marked addition: the map as integers, and back."""
    levels = [f"{mark}.scale", f"{mark}.zero"]
    for name, value in zip(levels, (scale, np.array(zero, np.uint8)), strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    integer = f"{mark}.integers"
    source = next(name for name in node.input if name != mark)
    return [
        helper.make_node("QuantizeLinear", [source, *levels], [integer], f"{mark}.quantize"),
        helper.make_node("DequantizeLinear", [integer, *levels], list(node.output), f"{mark}.dequantize"),
    ]


def _integer(
    graph: onnx.GraphProto, constant: onnx.TensorProto, kind: type[np.signedinteger[Any]], scales: NDArray[Any]
) -> onnx.NodeProto:
    """A constant of integers, output channels first, and the node that makes numbers of them."""
    values = numpy_helper.to_array(constant)
    steps = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float64))
    entries = {
        "integers": steps.astype(kind),
        "scale": scales.astype(np.float32),
        "zero": np.zeros(len(scales), kind),
    }
    names = [f"{constant.name}.{key}" for key in entries]
    graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in zip(names, entries.values(), strict=True)
    )
    return helper.make_node(
        "DequantizeLinear", names, [f"{constant.name}.rounded"], f"{constant.name}.dequantize", axis=0
    )
