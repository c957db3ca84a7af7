"""What a program makes of the maps of a cell in the middle of it, and the gradient of an output by these maps.

Plans compute forward alone (`native`). Of the layers behind a cell, NumPy does the forward pass and the backward one:
there are few where it matters most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .program import KINDS, LANES, Activation, Finished, Layer, Mark

# The gradient of what a layer gives -> the gradients of the maps that it read: of its input, and of the other ones.
_Backward = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any] | None]]


class Rest:
    """The layers of a program behind the maps of a cell.

    Args:
        program: the whole.
        mark: of the cell.
    """

    def __init__(self, program: Finished, mark: Mark) -> None:
        self._maps, self._outputs, self._blocks = mark.maps, program.outputs, program.blocks
        self._layers = list(program.layers())[mark.layers :]
        self._there = np.flatnonzero(mark.maps.lanes >= 0)
        self._channels = mark.maps.lanes[self._there]

    def __call__(self, maps: NDArray[Any], wanted: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Outputs, and maps and gradients of the cell.

        Args:
            maps: of `Finished.until`, float32 (N, lanes, h, w).
            wanted: of each image, the output whose gradient is taken, int (N,); below 0: the largest one.

        Returns outputs (N, outputs), and the cell's maps and gradients (N, channels, h, w), all float32.
        """
        state = {self._maps.index: self._at_their_place(maps)}
        steps = [self._forward(layer, state) for layer in self._layers]
        last = self._layers[-1].numbers.out
        outputs = state[last][:, 0, 0, : self._outputs]
        gradients = {last: np.zeros_like(state[last])}
        gradients[last][np.arange(len(maps)), 0, 0, np.where(wanted < 0, outputs.argmax(axis=1), wanted)] = 1
        for layer, (backward, shape) in zip(reversed(self._layers), reversed(steps), strict=True):
            self._back(layer, backward, shape, gradients)
        first = self._maps.first * LANES
        found = gradients[self._maps.index][..., first : first + len(self._maps.lanes)]
        return outputs, self._of_channels(maps), self._of_channels(found.transpose(0, 3, 1, 2))

    def _of_channels(self, lanes: NDArray[Any]) -> NDArray[Any]:
        """Maps (N, lanes, h, w) as the cell gives them."""
        found = np.empty((len(lanes), len(self._channels), *lanes.shape[2:]), np.float32)
        found[:, self._channels] = lanes[:, self._there]
        return found

    def _at_their_place(self, maps: NDArray[Any]) -> NDArray[Any]:
        count, lanes, height, width = maps.shape
        room = np.zeros((count, height, width, self._blocks[self._maps.index] * LANES), np.float32)
        first = self._maps.first * LANES
        room[..., first : first + lanes] = maps.transpose(0, 2, 3, 1)
        return room

    def _forward(self, layer: Layer, state: dict[int, NDArray[Any]]) -> tuple[_Backward, tuple[int, ...]]:
        """Compute a layer; what takes its gradients back, and the shape of the map that it read."""
        numbers = layer.numbers
        read = state[numbers.source][..., _source(layer)]
        other = None if numbers.other < 0 else state[numbers.other][..., _other(layer)]
        made, backward = _LAYERS[KINDS[numbers.kind]](layer, read, other)
        made, slope = _activated(made, Activation(numbers.activation))
        if numbers.out not in state:
            state[numbers.out] = np.zeros((*made.shape[:3], self._blocks[numbers.out] * LANES), np.float32)
        shape = state[numbers.source].shape
        state[numbers.out][..., _out(layer)] = made

        def through(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
            return backward(gradient if slope is None else gradient * slope)

        return through, shape

    def _back(
        self, layer: Layer, backward: _Backward, shape: tuple[int, ...], gradients: dict[int, NDArray[Any]]
    ) -> None:
        """Take gradients through a layer, the last one that has not been gone through."""
        numbers = layer.numbers
        if numbers.out not in gradients:
            return  # nothing that is asked for depends on it
        whole = gradients[numbers.out][..., _out(layer)]
        own = whole.copy()
        # What was there before has been written over.
        whole[...] = 0
        of_read, of_other = backward(own)
        if numbers.source not in gradients:
            gradients[numbers.source] = np.zeros(shape, np.float32)
        gradients[numbers.source][..., _source(layer)] += of_read
        if of_other is None:
            return
        if numbers.other not in gradients:
            lanes = self._blocks[numbers.other] * LANES
            gradients[numbers.other] = np.zeros((*of_other.shape[:3], lanes), np.float32)
        gradients[numbers.other][..., _other(layer)] += of_other


def _source(layer: Layer) -> slice:
    """The lanes that it reads; a dense layer chooses from all that follow the first one."""
    numbers = layer.numbers
    first = numbers.source_first * LANES
    return slice(first, None if KINDS[numbers.kind] == "Dense" else first + numbers.blocks * LANES)


def _other(layer: Layer) -> slice:
    first = layer.numbers.other_first * LANES
    return slice(first, first + layer.numbers.blocks * LANES)


def _out(layer: Layer) -> slice:
    first = layer.numbers.out_first * LANES
    return slice(first, first + layer.numbers.blocks * LANES)


def _activated(x: NDArray[Any], activation: Activation) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Values, and by what their gradients are multiplied; None: by 1."""
    if activation == Activation.RELU:
        return np.maximum(x, 0), x > 0
    if activation == Activation.HARD_SIGMOID:
        return np.clip(x + 3, 0, 6) / np.float32(6), (np.abs(x) < 3) / np.float32(6)
    if activation == Activation.SIGMOID:
        y = 1 / (1 + np.exp(-x))
        return y, y * (1 - y)
    return x, None


def _windows(layer: Layer, shape: tuple[int, ...]) -> Iterator[tuple[int, int, slice, slice]]:
    """Each tap of a kernel, and the rows and columns of padded maps, of this shape, that it reads."""
    numbers = layer.numbers
    rows, columns = shape[1] - numbers.height, shape[2] - numbers.width
    for y in range(numbers.height):
        for x in range(numbers.width):
            yield y, x, slice(y, y + rows + 1, numbers.stride), slice(x, x + columns + 1, numbers.stride)


def _padded(layer: Layer, x: NDArray[Any]) -> NDArray[Any]:
    high, wide = layer.numbers.pad_height, layer.numbers.pad_width
    return np.pad(x, ((0, 0), (high, high), (wide, wide), (0, 0))) if high or wide else x


def _inside(layer: Layer, x: NDArray[Any]) -> NDArray[Any]:
    """Padded maps without what was padded."""
    high, wide = layer.numbers.pad_height, layer.numbers.pad_width
    return x[:, high : x.shape[1] - high, wide : x.shape[2] - wide]


def _multiplied(maps: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """Each pixel, a row, times a matrix: all in one product."""
    *shape, inputs = maps.shape
    return (maps.reshape(-1, inputs) @ matrix).reshape(*shape, -1)


def _pad(layer: Layer, x: NDArray[Any], _other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    return _padded(layer, x), lambda gradient: (_inside(layer, gradient), None)


def _convolution(layer: Layer, x: NDArray[Any], other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    """Dense: each output lane sums up all inputs. Depthwise: its own one."""
    is_dense = KINDS[layer.numbers.kind] == "Dense"
    inputs = _padded(layer, x[..., layer.inputs] if is_dense else x)
    weight = layer.weight.transpose(2, 3, 1, 0)  # height, width, inputs, lanes
    made: NDArray[Any] = layer.bias
    for row, column, rows, columns in _windows(layer, inputs.shape):
        seen, tap = inputs[:, rows, columns], weight[row, column]
        made = made + (_multiplied(seen, tap) if is_dense else seen * tap[0])
    shape = inputs.shape

    def backward(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        of_inputs = np.zeros(shape, np.float32)
        for row, column, rows, columns in _windows(layer, shape):
            tap = weight[row, column]
            of_inputs[:, rows, columns] += _multiplied(gradient, tap.T) if is_dense else gradient * tap[0]
        found = _inside(layer, of_inputs)
        if is_dense:
            of_read = np.zeros_like(x)
            of_read[..., layer.inputs] = found
            found = of_read
        return found, None if other is None else gradient

    return made if other is None else made + other, backward


def _means(_layer: Layer, x: NDArray[Any], _other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    shape = x.shape

    def backward(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        return np.broadcast_to(gradient / np.float32(shape[1] * shape[2]), shape), None

    return x.mean(axis=(1, 2), keepdims=True), backward


def _gate(_layer: Layer, x: NDArray[Any], gates: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    assert gates is not None
    x = x.copy()  # what is made takes its place
    return x * gates, lambda gradient: (gradient * gates, (gradient * x).sum(axis=(1, 2), keepdims=True))


def _weigh(_layer: Layer, x: NDArray[Any], weights: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    assert weights is not None
    x, small = x.copy(), weights.shape
    rows, columns = (np.arange(x.shape[axis]) * small[axis] // x.shape[axis] for axis in (1, 2))
    large = weights[:, rows[:, None], columns]

    def backward(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        # Both axes of pixels in turn: the sum of those that have a weight in common.
        sums = np.add.reduceat(gradient * x, np.searchsorted(rows, np.arange(small[1])), axis=1)
        return gradient * large, np.add.reduceat(sums, np.searchsorted(columns, np.arange(small[2])), axis=2)

    return x * large, backward


def _add(_layer: Layer, x: NDArray[Any], other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    assert other is not None
    return x + other, lambda gradient: (gradient, gradient)


def _pool(layer: Layer, x: NDArray[Any], _other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    """Means of windows that do not overlap; what is left over at the edges is not read."""
    count, height, width, lanes = shape = x.shape
    high, wide = min(layer.numbers.height, height), min(layer.numbers.width, width)
    rows, columns = height // high, width // wide
    parts = x[:, : rows * high, : columns * wide].reshape(count, rows, high, columns, wide, lanes)

    def backward(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        found = np.zeros(shape, np.float32)
        spread = (gradient / np.float32(high * wide)).repeat(high, axis=1).repeat(wide, axis=2)
        found[:, : rows * high, : columns * wide] = spread
        return found, None

    return parts.mean(axis=(2, 4)), backward


def _max_pool(layer: Layer, x: NDArray[Any], _other: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    """The largest of each window; the first of several that are alike gets the gradient."""
    high, wide = layer.numbers.pad_height, layer.numbers.pad_width
    around = np.pad(x, ((0, 0), (high, high), (wide, wide), (0, 0)), constant_values=-np.inf)
    places = list(_windows(layer, around.shape))
    seen = np.stack([around[:, rows, columns] for _, _, rows, columns in places])
    largest = seen.argmax(axis=0)

    def backward(gradient: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        found = np.zeros(around.shape, np.float32)
        for place, (_, _, rows, columns) in enumerate(places):
            found[:, rows, columns] += np.where(largest == place, gradient, 0)
        return _inside(layer, found), None

    return seen.max(axis=0), backward


def _shift(_layer: Layer, x: NDArray[Any], shifts: NDArray[Any] | None) -> tuple[NDArray[Any], _Backward]:
    assert shifts is not None
    return x + shifts, lambda gradient: (gradient, gradient.sum(axis=(1, 2), keepdims=True))


# Of each kind of layers: layer, what it reads, the other maps -> what it makes, before its activation, and backwards.
_LAYERS: dict[str, Callable[[Layer, NDArray[Any], NDArray[Any] | None], tuple[NDArray[Any], _Backward]]] = {
    "Pad": _pad,
    "Dense": _convolution,
    "Depthwise": _convolution,
    "Means": _means,
    "Gate": _gate,
    "Weigh": _weigh,
    "Add": _add,
    "Pool": _pool,
    "Shift": _shift,
    "MaxPool": _max_pool,
}
