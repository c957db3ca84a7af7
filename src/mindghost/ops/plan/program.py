"""A network as the layers that `csrc/ops/plan.h` runs, with their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# What C++ knows, too (`native` compares): the kinds of layers, in order, and how many channels lie side by side.
KINDS = ("Pad", "Dense", "Depthwise", "Means", "Gate", "Weigh", "Add", "Pool", "Shift", "MaxPool", "Enlarge")
LANES = 8
# A program begins with the numbers of maps, of layers and of outputs.
_HEAD = 3


class Activation(IntEnum):
    """What a layer ends with."""

    NONE = 0
    RELU = 1
    HARD_SIGMOID = 2
    SIGMOID = 3


class Convolution(NamedTuple):
    """A convolution's weights (outputs, inputs / groups, height, width) and bias (outputs,), and how it goes over maps.

    `padding` are rows above and below, and columns left and right. `depthwise`: of each channel on its own. `groups`:
    parts of the channels that know nothing of each other.
    """

    weight: NDArray[Any]
    bias: NDArray[Any]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    activation: Activation = Activation.NONE
    depthwise: bool = False
    groups: int = 1


class Numbers(NamedTuple):
    """A layer as C++ reads it, in this order: what it reads and makes, how, and how many numbers follow for it.

    So many `weights` and `biases` follow in the array of weights, and as many lanes as `inputs` says behind these
    numbers. Maps have an index, and a first block of LANES; `blocks` are those that are made. Zeros are `pad_height`
    rows above and below, and `pad_width` columns left and right.
    """

    kind: int
    source: int
    source_first: int
    out: int
    out_first: int
    blocks: int
    height: int
    width: int
    stride: int
    pad_height: int
    pad_width: int
    activation: int
    other: int
    other_first: int
    weights: int
    biases: int
    inputs: int


class Layer(NamedTuple):
    """A layer of a finished program; its weights (lanes, inputs, height, width), bias (lanes,) and inputs' lanes."""

    numbers: Numbers
    weight: NDArray[Any]
    bias: NDArray[Any]
    inputs: NDArray[Any]


@dataclass(frozen=True)
class Maps:
    """Feature maps, or some of those that lie together.

    Attributes:
        index: of what lies together.
        first: of these, which block of LANES is the first.
        lanes: the channel of each lane, int64; -1 where there is none, and all values are zeros.
    """

    index: int
    first: int
    lanes: NDArray[Any]

    @property
    def blocks(self) -> int:
        """How many times LANES lanes there are."""
        return len(self.lanes) // LANES

    def part(self, first: int, lanes: int) -> Maps:
        """So many lanes from one on, both multiples of LANES."""
        return Maps(self.index, self.first + first // LANES, self.lanes[first : first + lanes])


@dataclass(frozen=True)
class Mark:
    """Where in a program the maps of a cell are ready, and nothing else is that a later layer reads.

    Attributes:
        layers: that come before.
        maps: of the cell.
        reduction: pixels of the image along one side for each pixel of these maps, if `feature_info` names them;
            otherwise 0.
    """

    layers: int
    maps: Maps
    reduction: int = 0


@dataclass(frozen=True)
class Finished:
    """A program as C++ reads it: numbers int64, weights float32, and the channels of images.

    Attributes:
        marks: by the name of a cell, in order.
        is_dense: there are outputs for each pixel, and not for each image.
    """

    numbers: NDArray[Any]
    weights: NDArray[Any]
    in_channels: int
    marks: dict[str, Mark] = field(default_factory=dict)
    is_dense: bool = False

    @property
    def outputs(self) -> int:
        """Channels of the last map."""
        return int(self.numbers[2])

    @property
    def blocks(self) -> NDArray[Any]:
        """Of each map."""
        return self.numbers[_HEAD : _HEAD + self.numbers[0]]

    def layers(self) -> Iterator[Layer]:
        """One after the other."""
        for numbers, inputs, weights in self._places():
            weight, bias = np.split(
                self.weights[weights : weights + numbers.weights + numbers.biases], [numbers.weights]
            )
            shape = (numbers.biases, -1, numbers.height, numbers.width)
            lanes = self.numbers[inputs : inputs + numbers.inputs]
            yield Layer(numbers, weight.reshape(shape) if numbers.biases else weight, bias, lanes)

    def until(self, mark: Mark) -> Finished:
        """The program of a cell's maps: all of its lanes are outputs."""
        places = list(self._places())[: mark.layers]
        last, inputs, weights = places[-1]
        maps = mark.maps
        copied = _numbers("Pad", maps, Maps(len(self.blocks), 0, maps.lanes))
        head = [len(self.blocks) + 1, mark.layers + 1, len(maps.lanes), *self.blocks, maps.blocks]
        layers = self.numbers[_HEAD + len(self.blocks) : inputs + last.inputs]
        numbers = np.concatenate([np.array(head, np.int64), layers, np.array(copied, np.int64)])
        return Finished(numbers, self.weights[: weights + last.weights + last.biases], self.in_channels)

    def _places(self) -> Iterator[tuple[Numbers, int, int]]:
        """Each layer's numbers, and where its inputs and its weights begin."""
        at, weights = _HEAD + int(self.numbers[0]), 0
        for _ in range(self.numbers[1]):
            numbers = Numbers(*map(int, self.numbers[at : at + len(Numbers._fields)]))
            at += len(Numbers._fields)
            yield numbers, at, weights
            at += numbers.inputs
            weights += numbers.weights + numbers.biases


def padded(channels: NDArray[Any]) -> NDArray[Any]:
    """The lanes of channels that begin and end with a block."""
    return np.pad(np.asarray(channels, np.int64), (0, -len(channels) % LANES), constant_values=-1)


class Program:
    """Layers, one after the other.

    Attributes:
        images: what the first layer reads, (N, in_channels, H, W).
    """

    def __init__(self, in_channels: int) -> None:
        self._blocks: list[int] = []
        self._layers: list[list[int]] = []
        self._weights: list[NDArray[Any]] = []
        self._marks: dict[str, Mark] = {}
        self.images = self._images(np.arange(in_channels))

    def _images(self, channels: NDArray[Any]) -> Maps:
        """Maps of which each channel lies on its own."""
        self._blocks.append(0)
        return Maps(len(self._blocks) - 1, 0, channels)

    def maps(self, lanes: NDArray[Any]) -> Maps:
        """Room for maps."""
        self._blocks.append(len(lanes) // LANES)
        return Maps(len(self._blocks) - 1, 0, lanes)

    def dense(self, x: Maps, layer: Convolution, out: Maps | None = None, other: Maps | None = None) -> Maps:
        """A convolution of all channels, plus `other`.

        Channels lie in order if no `out` is given; each group begins and ends with a block.
        """
        if any(layer.padding) or x.index == self.images.index:  # only Pad reads the caller's images
            padded_maps = self._images(x.lanes) if self._is_plain(x) else self.maps(x.lanes)
            self._add("Pad", x, padded_maps, padding=layer.padding)
            x = padded_maps
        if out is None:
            groups = np.split(np.arange(len(layer.weight)), layer.groups)
            out = self.maps(np.concatenate([padded(group) for group in groups]))
        ins, outs = layer.weight.shape[1], len(layer.weight) // layer.groups
        for group in range(layer.groups):
            inputs = np.flatnonzero((x.lanes >= group * ins) & (x.lanes < (group + 1) * ins))
            made = out
            if layer.groups > 1:
                # Whole blocks of this group alone.
                size = len(out.lanes) // layer.groups
                made = out.part(group * size, size)
                assert set(made.lanes) <= {-1, *range(group * outs, (group + 1) * outs)}
            weight = _of_lanes(layer.weight[:, x.lanes[inputs] - group * ins], made.lanes)
            more = other and (other if layer.groups == 1 else other.part(group * size, size))
            self._add("Dense", x, made, layer, more, weight, _of_lanes(layer.bias, made.lanes), inputs=inputs)
        return out

    def depthwise(self, x: Maps, layer: Convolution, out: Maps | None = None, other: Maps | None = None) -> Maps:
        """A convolution of each channel on its own, lane for lane, plus `other`."""
        out = self.maps(x.lanes) if out is None else out
        weight, bias = _of_lanes(layer.weight, out.lanes), _of_lanes(layer.bias, out.lanes)
        self._add("Depthwise", x, out, layer, other, weight, bias, layer.padding)
        return out

    def means(self, x: Maps, out: Maps | None = None) -> Maps:
        """The mean of each map."""
        out = self.maps(x.lanes) if out is None else out
        self._add("Means", x, out)
        return out

    def gate(self, x: Maps, gates: Maps) -> None:
        """Scale each map by one of the values of `gates`, in place."""
        self._add("Gate", x, x, other=gates)

    def shift(self, x: Maps, shifts: Maps, activation: Activation) -> None:
        """Add one of the values of `shifts` to each map, in place."""
        self._add("Shift", x, x, _no_weights(activation), shifts)

    def weigh(self, x: Maps, weights: Maps) -> None:
        """Scale each pixel by the nearest one of smaller maps, in place."""
        self._add("Weigh", x, x, other=weights)

    def add(self, x: Maps, other: Maps, activation: Activation = Activation.NONE) -> None:
        """Add other maps, in place."""
        self._add("Add", x, x, _no_weights(activation), other)

    def halve(self, x: Maps) -> Maps:
        """Means of 2x2 pixels, as `models.ghostnetv2.halve` has them."""
        out = self.maps(x.lanes)
        self._add("Pool", x, out, Convolution(np.zeros((0, 0, 2, 2)), np.zeros(0), stride=2))
        return out

    def max_pool(self, x: Maps, size: int, stride: int, padding: int) -> Maps:
        """The largest value of each window of `size` x `size` pixels; what is padded does not count."""
        out = self.maps(x.lanes)
        window = Convolution(np.zeros((0, 0, size, size)), np.zeros(0), stride=stride)
        self._add("MaxPool", x, out, window, padding=(padding, padding))
        return out

    def enlarge(self, x: Maps, factor: int, most: Maps, out: Maps | None = None) -> Maps:
        """Maps `factor` times as large, as `models.upsample.Enlarge` has them, cut to the size of `most`."""
        out = self.maps(x.lanes) if out is None else out
        # Of `most` the size counts, and no block.
        self._add(
            "Enlarge", x, out, Convolution(np.zeros((0, 0, factor, factor)), np.zeros(0)), Maps(most.index, 0, x.lanes)
        )
        return out

    def copy(self, x: Maps, out: Maps) -> None:
        """The same maps at another place, lane for lane."""
        self._add("Pad", x, out)

    def arranged(self, x: Maps, lanes: NDArray[Any]) -> Maps:
        """The same maps in other lanes, and zeros for channels that are not there."""
        if np.array_equal(x.lanes, lanes):
            return x
        identity = np.eye(int(lanes.max()) + 1, dtype=np.float32)[:, :, None, None]
        return self.dense(x, Convolution(identity, np.zeros(len(identity))), self.maps(lanes))

    def mark(self, names: dict[str, int], x: Maps) -> None:
        """Say that these maps, which alone are read later, are those of cells: names -> `Mark.reduction`."""
        for name, reduction in names.items():
            self._marks[name] = Mark(len(self._layers), x, reduction)

    def finished(self, out: Maps, classes: int, is_dense: bool = False) -> Finished:
        """The whole.

        Args:
            out: the last maps that were made, whose channels are in order.
            classes: how many there are.
            is_dense: whether they have more than one pixel.
        """
        assert out.index == len(self._blocks) - 1
        assert np.array_equal(out.lanes, padded(np.arange(classes)))
        numbers = [len(self._blocks), len(self._layers), classes, *self._blocks]
        program = np.concatenate([np.array(part, np.int64) for part in (numbers, *self._layers)])
        weights = np.concatenate(self._weights)
        return Finished(program, weights, len(self.images.lanes), self._marks, is_dense)

    def _is_plain(self, x: Maps) -> bool:
        return self._blocks[x.index] == 0

    def _add(
        self,
        kind: str,
        x: Maps,
        out: Maps,
        layer: Convolution | None = None,
        other: Maps | None = None,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        padding: tuple[int, int] = (0, 0),
        inputs: NDArray[Any] | None = None,
    ) -> None:
        values = [array for array in (weight, bias) if array is not None]
        sizes = (values[0].size, values[1].size) if values else (0, 0)
        lanes = [] if inputs is None else list(inputs)
        numbers = _numbers(kind, x, out, layer, other, padding, (*sizes, len(lanes)))
        self._layers.append([*numbers, *lanes])
        self._weights += [np.ascontiguousarray(array, np.float32).ravel() for array in values]


def _numbers(
    kind: str,
    x: Maps,
    out: Maps,
    layer: Convolution | None = None,
    other: Maps | None = None,
    padding: tuple[int, int] = (0, 0),
    sizes: tuple[int, int, int] = (0, 0, 0),
) -> Numbers:
    """`sizes`: of weights, biases and inputs."""
    height, width, stride, activation = 1, 1, 1, Activation.NONE
    if layer is not None:
        (height, width), stride, activation = layer.weight.shape[2:], layer.stride, layer.activation
    added = (-1, 0) if other is None else (other.index, other.first)
    return Numbers(
        *(KINDS.index(kind), x.index, x.first, out.index, out.first, out.blocks),
        *(height, width, stride, *padding, activation, *added, *sizes),
    )


def _no_weights(activation: Activation) -> Convolution:
    """In the place of a convolution, for what else ends with an activation."""
    return Convolution(np.zeros((0, 0, 1, 1)), np.zeros(0), activation=activation)


def _of_lanes(values: NDArray[Any], lanes: NDArray[Any]) -> NDArray[Any]:
    """The values of each lane's channel; zeros where there is none."""
    found: NDArray[Any] = np.zeros((len(lanes), *values.shape[1:]), np.float32)
    there = lanes >= 0
    found[there] = values[lanes[there]]
    return found
