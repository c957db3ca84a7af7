"""A network with fewer channels: whole groups of them are removed, and it is an ordinary network afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from ...models.pruned import channels_of, fitting, layers_of
from . import select
from .graph import Group, dependencies

IMPORTANCE = ("magnitude", "scale", "loss")


@dataclass(frozen=True)
class Pruned:
    """What is left of a network.

    Attributes:
        arrays: its parameters.
        channels: of the layers that have fewer (`models.pruned.Channels`).
        groups: that were removed, and how many there were.
        macs: multiply-accumulates of an image, before and after.
        parameters: values of the weights, batch-norm statistics among them, before and after.
    """

    arrays: dict[str, NDArray[Any]]
    channels: dict[str, tuple[int, ...]]
    groups: tuple[int, int]
    macs: tuple[int, int]
    parameters: tuple[int, int]


def prune(
    network: nn.Cell,
    shape: tuple[int, int, int],
    share: float,
    importance: str = "magnitude",
    gradients: Iterable[select.Arrays] = (),
    multiple: int = 1,
) -> Pruned:
    """What is left of a network with a share of its multiply-accumulates.

    Args:
        network: with its weights; it stays as it is.
        shape: channels, height and width of an image.
        share: of the multiply-accumulates, above 0 and below 1.
        importance: of IMPORTANCE: see `select`.
        gradients: of the loss of some batches, for the importance "loss".
        multiple: channels that are alike go by so many at a time.

    Raises UserError where the network's graph cannot be followed.
    """
    found = dependencies(network, *shape)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    before = select.macs_of(found.convolutions)
    if importance == "magnitude":
        worth = select.by_magnitude(found.groups, arrays)
    elif importance == "scale":
        worth = select.by_scale(found.groups, arrays)
    else:
        worth = np.sum([select.by_loss(found.groups, arrays, each) for each in gradients], axis=0)
    gone, after = select.chosen(found, worth, share, multiple)
    left = without(arrays, gone)
    values = tuple(sum(array.size for array in each.values()) for each in (arrays, left))
    return Pruned(
        left,
        _channels(network, left),
        (len(gone), len(found.groups)),
        (before, after),
        (values[0], values[1]),
    )


def without(arrays: Mapping[str, NDArray[Any]], groups: Iterable[Group]) -> dict[str, NDArray[Any]]:
    """Parameters without the rows and columns of some groups."""
    gone: dict[tuple[str, int], list[int]] = defaultdict(list)
    for group in groups:
        for member in group.members:
            gone[member.parameter, member.axis].append(member.index)
    kept = dict(arrays)
    for (name, axis), indices in gone.items():
        kept[name] = np.delete(kept[name], indices, axis)
    return kept


def _channels(network: nn.Cell, arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The channels of the layers that have fewer in some arrays. A classifier's outputs are left to `num_classes`."""
    full = channels_of(network)
    fewer = {name: new for name, new in fitting(network, arrays).items() if new != full[name]}
    layers = layers_of(network)
    return {
        name: (0, new[1]) if isinstance(layers[name], nn.Dense) and new[0] == full[name][0] else new
        for name, new in fewer.items()
    }
