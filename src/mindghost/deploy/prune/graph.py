"""Which channels of a network stand or fall together: found on the network itself, by following its graph.

A channel that a convolution makes goes through batch norms and activations as it is. A depthwise convolution makes its
ghosts of it; a sum or a product has it together with the channels of the other branch (a shortcut, a gate); a
concatenation puts it beside others. All channels that are one in this sense are a group: it is removed as a whole, from
every parameter that has a row or a column for it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ...errors import UserError
from ...files import scratch
from ...runtime import in_mode
from .. import fold, onnx_fixes

# Images that the graph is traced with.
_IMAGES = 3
_ALIKE = (
    "Relu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Dropout",
    "Cast",
    "Softmax",
    "Sqrt",
    "Neg",
)
_POOLS = ("AveragePool", "MaxPool", "GlobalAveragePool", "Resize", "Pad", "Slice", "ReduceMean")
_PAIRED = ("Add", "Mul", "Sub", "Div", "Max", "Min")


@dataclass(frozen=True)
class Member:
    """A row or a column of a parameter: `index` along `axis`."""

    parameter: str
    axis: int
    index: int


@dataclass
class Group:
    """Channels that stand or fall together.

    Attributes:
        members: rows and columns of parameters.
        fixed: it cannot be removed: images or answers have it, or what this module does not follow.
    """

    members: list[Member] = field(default_factory=list)
    fixed: bool = False


@dataclass(frozen=True)
class Convolution:
    """A convolution or dense layer: multiply-accumulates of an image are out x in x `factor`.

    Attributes:
        parameter: its weight.
        outputs, inputs: channels.
        factor: positions x kernel.
        depthwise: each output is made of one input.
    """

    parameter: str
    outputs: int
    inputs: int
    factor: int
    depthwise: bool


@dataclass(frozen=True)
class Dependencies:
    """What there is to remove, and what it costs to keep.

    Attributes:
        groups: of channels.
        convolutions: with their cost.
    """

    groups: Sequence[Group]
    convolutions: Sequence[Convolution]


def dependencies(network: nn.Cell, in_channels: int, height: int, width: int) -> Dependencies:
    """Follow a network's graph for images of one size.

    Raises UserError where the network has an operator that this module does not know.
    """
    return _Follower(_graph(network, in_channels, height, width)).followed()


def _graph(network: nn.Cell, in_channels: int, height: int, width: int) -> Any:
    """The network as an ONNX model, in evaluation mode, with its own parameters; the network stays as it is."""
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"pruning follows a network's graph by onnx ({error}); pip install onnx") from error
    training = network.training
    network.set_train(False)
    example = Tensor(np.zeros((_IMAGES, in_channels, height, width), np.float32))
    with scratch.folder("prune") as folder, in_mode(ms.GRAPH_MODE), fold.exportable(network):
        ms.export(network, example, file_name=str(folder / "network.onnx"), file_format="ONNX")
        model = onnx.load(folder / "network.onnx")
    network.set_train(training)
    for node in model.graph.node:
        onnx_fixes.order_padding(node)
    return onnx.shape_inference.infer_shapes(model)


class _Union:
    """Sets of numbers that are joined."""

    def __init__(self) -> None:
        self._above: list[int] = []

    def new(self, count: int) -> list[int]:
        """So many numbers, each a set of its own."""
        first = len(self._above)
        self._above += range(first, first + count)
        return list(range(first, first + count))

    def of(self, number: int) -> int:
        """The set of a number, by one of its members."""
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make two sets one."""
        self._above[self.of(one)] = self.of(other)


class _Follower:
    """Walks a graph, and notes for each of its arrays which channel is which."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        graph = model.graph
        self._nodes = list(graph.node)
        self._constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
        infos = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {name: array.shape for name, array in self._constants.items()}
        self._shapes |= {info.name: tuple(size.dim_value for size in info.type.tensor_type.shape.dim) for info in infos}
        self._ends = [output.name for output in graph.output]
        self._inputs = [given.name for given in graph.input if given.name not in self._constants]
        self._union = _Union()
        self._channels: dict[str, list[int]] = {}
        self._members: list[tuple[int, Member]] = []
        self._fixed: list[int] = []
        self._convolutions: list[Convolution] = []

    def followed(self) -> Dependencies:
        """The groups and the costs."""
        for name in self._inputs:
            self._channels[name] = self._union.new(self._shapes[name][1])
            self._fixed += self._channels[name]
        for node in self._nodes:
            self._follow(node)
        for name in self._ends:
            self._fixed += self._channels.get(name, [])
        return Dependencies(list(self._groups().values()), self._convolutions)

    def _groups(self) -> dict[int, Group]:
        groups: dict[int, Group] = defaultdict(Group)
        for channel, member in dict.fromkeys(self._members):
            groups[self._union.of(channel)].members.append(member)
        for channel in self._fixed:
            groups[self._union.of(channel)].fixed = True
        return groups

    def _follow(self, node: Any) -> None:
        kind = node.op_type
        known = [name for name in node.input if name in self._channels]
        if kind == "Constant" or not known:
            return
        attributes = {entry.name: entry for entry in node.attribute}
        if kind == "Conv":
            self._convolve(node, attributes["group"].i if "group" in attributes else 1)
        elif kind in ("Gemm", "MatMul"):
            self._multiply(node, attributes)
        elif kind == "BatchNormalization":
            for name in node.input[1:]:
                self._note(name, 0, self._channels[known[0]])
            self._channels[node.output[0]] = self._channels[known[0]]
        elif kind == "Concat":
            self._channels[node.output[0]] = [c for name in node.input for c in self._joined(name)]
        elif kind == "Split":
            self._split(node)
        elif kind == "Slice" and self._shapes[node.output[0]][1] != self._shapes[node.input[0]][1]:
            self._slice(node)
        elif kind in _PAIRED:
            self._pair(node)
        elif kind in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            self._channels[node.output[0]] = self._reshaped(node)
        elif kind in _ALIKE or kind in _POOLS:
            self._channels[node.output[0]] = self._channels[known[0]]
        else:
            raise self._unknown(node)

    def _unknown(self, node: Any) -> UserError:
        return UserError(f"pruning cannot follow the operator {node.op_type} of this network ({node.name[-80:]})")

    def _note(self, parameter: str, axis: int, channels: Sequence[int]) -> None:
        """Each channel has a row or column of a parameter."""
        self._members += [(channel, Member(parameter, axis, index)) for index, channel in enumerate(channels)]

    def _convolve(self, node: Any, group: int) -> None:
        weight, taken, (made,) = node.input[1], self._channels[node.input[0]], node.output
        outputs, shape = self._constants[weight].shape[0], self._constants[weight].shape
        depthwise = group == len(taken) > 1
        if depthwise:
            # Ghosts are one with what they are made of.
            channels = [taken[index // (outputs // group)] for index in range(outputs)]
        else:
            channels = self._union.new(outputs)
            if group == 1:
                self._note(weight, 1, taken)
            else:
                self._fixed += [*channels, *taken]
        self._note(weight, 0, channels)
        for bias in node.input[2:]:
            self._note(bias, 0, channels)
        positions = math.prod(self._shapes[made][2:])
        inputs = 1 if depthwise else shape[1]
        self._convolutions.append(Convolution(weight, outputs, inputs, positions * math.prod(shape[2:]), depthwise))
        self._channels[made] = channels

    def _multiply(self, node: Any, attributes: Any) -> None:
        """A dense layer; or what makes other positions of positions, and leaves channels as they are."""
        taken, weight = self._channels[node.input[0]], node.input[1]
        if weight not in self._constants or len(taken) != self._shapes[node.input[0]][-1]:
            self._channels[node.output[0]] = taken
            return
        rows_are_outputs = "transB" in attributes and attributes["transB"].i == 1
        outputs = self._constants[weight].shape[0 if rows_are_outputs else 1]
        channels = self._union.new(outputs)
        self._note(weight, 1 if rows_are_outputs else 0, taken)
        self._note(weight, 0 if rows_are_outputs else 1, channels)
        for bias in node.input[2:]:
            self._note(bias, 0, channels)
        self._convolutions.append(Convolution(weight, outputs, len(taken), 1, False))
        self._channels[node.output[0]] = channels

    def _joined(self, name: str) -> list[int]:
        """The channels of an array that is joined to others; those of a constant stay as many as they are."""
        if name not in self._channels:
            self._channels[name] = self._union.new(self._shapes[name][1])
            self._fixed += self._channels[name]
        return self._channels[name]

    def _split(self, node: Any) -> None:
        taken, start = self._channels[node.input[0]], 0
        for name in node.output:
            count = self._shapes[name][1]
            self._channels[name] = taken[start : start + count]
            start += count
        # What is cut off leaves no trace: what it is made of stays.
        used = {name for other in self._nodes for name in other.input} | set(self._ends)
        self._fixed += [channel for name in node.output if name not in used for channel in self._channels[name]]

    def _slice(self, node: Any) -> None:
        """Some of the channels, one after the other: their places are numbers in the network, and all of them stay."""
        if any(name not in self._constants for name in node.input[1:]):
            raise self._unknown(node)
        given = (self._constants[name].ravel().tolist() for name in node.input[1:])
        starts, ends, axes, *steps = given
        places = {axis: slice(*place) for axis, *place in zip(axes, starts, ends, *steps, strict=True)}
        taken, count = self._channels[node.input[0]], self._shapes[node.output[0]][1]
        self._channels[node.output[0]] = taken[places.get(1, slice(None))]
        if len(self._channels[node.output[0]]) != count:
            raise self._unknown(node)
        self._fixed += taken

    def _pair(self, node: Any) -> None:
        """Two arrays, element by element; one may be a number, or have a number for each channel."""
        known = [name for name in node.input if name in self._channels]
        first = self._channels[known[0]]
        for name in known[1:]:
            other = self._channels[name]
            if len(other) != len(first):
                raise self._unknown(node)
            for one, two in zip(first, other, strict=True):
                self._union.join(one, two)
        for name in set(node.input) - set(known):
            shape = self._constants[name].shape if name in self._constants else ()
            axis = len(shape) - len(self._shapes[known[0]]) + 1
            if axis >= 0 and shape and shape[axis] == len(first) > 1:
                self._note(name, axis, first)
        self._channels[node.output[0]] = first

    def _reshaped(self, node: Any) -> list[int]:
        """Channels of an array of another shape: they stay what they are, or each has several places now."""
        channels, shape = self._channels[node.input[0]], self._shapes[node.output[0]]
        if len(shape) == 2 and shape[0] == _IMAGES and shape[1] % len(channels) == 0:
            return [channel for channel in channels for _ in range(shape[1] // len(channels))]
        if shape[0] == _IMAGES and shape[1] == len(channels):
            return channels
        # Images and channels as one axis, which a later reshaping takes apart.
        if shape[0] % (_IMAGES * len(channels)) == 0:
            return channels
        raise self._unknown(node)
