"""Which groups of channels go: the least important ones, until the network costs no more than it may."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import Convolution, Dependencies, Group

Arrays = Mapping[str, NDArray[np.float32]]
# Of each layer so many channels stay, whatever they are worth.
_FEWEST, _SMALLEST_SHARE = 2, 0.125


def by_magnitude(groups: Sequence[Group], arrays: Arrays) -> NDArray[np.float64]:
    """The mean length of a group's filters, each in units of its layer's mean length.

    Li et al., Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710, with lengths in place of sums
    of absolute values.
    """
    lengths = {
        name: np.sqrt(np.square(array.astype(np.float64)).reshape(len(array), -1).sum(axis=1))
        for name, array in arrays.items()
        if name.endswith(".weight")
    }
    units = {name: found.mean() or 1.0 for name, found in lengths.items()}
    return _means(groups, {name: found / units[name] for name, found in lengths.items()})


def by_scale(groups: Sequence[Group], arrays: Arrays) -> NDArray[np.float64]:
    """The mean of a group's batch-norm scales, each in units of its layer's mean.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, https://arxiv.org/abs/1708.06519.
    Groups without batch norm are worth most.
    """
    scales = {name: np.abs(array.astype(np.float64)) for name, array in arrays.items() if name.endswith(".gamma")}
    found = _means(groups, {name: scale / (scale.mean() or 1.0) for name, scale in scales.items()})
    return np.where(np.isnan(found), np.inf, found)


def by_loss(groups: Sequence[Group], arrays: Arrays, gradients: Arrays) -> NDArray[np.float64]:
    """The squared change of the loss, to first order, if a group's filters were 0.

    Molchanov et al., Importance Estimation for Neural Network Pruning, https://arxiv.org/abs/1906.10771.
    """
    products = {name: arrays[name].astype(np.float64) * gradient for name, gradient in gradients.items()}
    changes = {name: found.reshape(len(found), -1).sum(axis=1) for name, found in products.items()}
    found = np.zeros(len(groups))
    for index, group in enumerate(groups):
        parts = [changes[m.parameter][m.index] for m in group.members if m.axis == 0 and m.parameter in changes]
        found[index] = sum(parts) ** 2
    return found


def _means(groups: Sequence[Group], values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of each group the mean of its rows' values; NaN where it has none."""
    found = np.full(len(groups), np.nan)
    for index, group in enumerate(groups):
        rows = [values[m.parameter][m.index] for m in group.members if m.axis == 0 and m.parameter in values]
        if rows:
            found[index] = np.mean(rows)
    return found


def macs_of(convolutions: Sequence[Convolution]) -> int:
    """Multiply-accumulates of an image."""
    return sum(each.outputs * each.inputs * each.factor for each in convolutions)


def chosen(
    found: Dependencies, importance: NDArray[np.float64], share: float, multiple: int = 1
) -> tuple[list[Group], int]:
    """The groups that go for a network with no more than a share of the multiply-accumulates, and how many are left.

    They go in the order of their importance, of equal ones the first. Where layers would lose too much, fewer go, and
    more are left than asked for. Groups with rows and columns of the same parameters go by `multiple` at a time, in the
    order of their mean importance: what there is beyond a multiple goes first, and multiples are left.
    """
    budget = _Budget(found.convolutions)
    target = share * budget.macs
    gone: list[Group] = []
    blocks = _blocks(found.groups, importance, multiple)
    worth = [importance[block].mean() for block in blocks]
    for index in np.argsort(worth, kind="stable"):
        if budget.macs <= target:
            break
        groups = [found.groups[place] for place in blocks[index]]
        if budget.take(groups):
            gone += groups
    return gone, budget.macs


def _blocks(groups: Sequence[Group], importance: NDArray[np.float64], multiple: int) -> list[list[int]]:
    """The places of groups that go together, in the order of their first ones where each is a block of its own."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        if not group.fixed:
            rows = Counter((member.parameter, member.axis) for member in group.members)
            alike[tuple(sorted(rows.items()))].append(place)
    blocks = []
    for places in alike.values():
        order = sorted(places, key=lambda place: importance[place])
        ends = range(len(order) % multiple or multiple, len(order) + 1, multiple)
        blocks += [order[max(end - multiple, 0) : end] for end in ends]
    return sorted(blocks)


class _Budget:
    """What is left of each layer.

    Attributes:
        macs: multiply-accumulates that are left.
    """

    def __init__(self, convolutions: Sequence[Convolution]) -> None:
        self._layers = {each.parameter: each for each in convolutions}
        self._left = {each.parameter: [each.outputs, each.inputs] for each in convolutions}
        self.macs = macs_of(convolutions)

    def take(self, groups: Sequence[Group]) -> bool:
        """Take groups away, unless a layer would have too few channels left."""
        less: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for member in (member for group in groups for member in group.members):
            if member.parameter in self._layers and member.axis < 2:
                less[member.parameter][member.axis] += 1
        for name, (outputs, inputs) in less.items():
            layer, left = self._layers[name], self._left[name]
            for count, whole, have in ((outputs, layer.outputs, left[0]), (inputs, layer.inputs, left[1])):
                if count and have - count < max(_FEWEST, _SMALLEST_SHARE * whole):
                    return False
        for name, (outputs, inputs) in less.items():
            left, factor = self._left[name], self._layers[name].factor
            before = left[0] * left[1]
            left[0] -= outputs
            left[1] -= inputs
            self.macs -= (before - left[0] * left[1]) * factor
        return True
