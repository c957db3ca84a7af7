"""A network with fewer channels than its constructor gives it: layers are replaced by narrower ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindspore import nn
from numpy.typing import NDArray

from .layers import GhostMaps
from .network import Network
from .surgery import convolution_like, is_depthwise, name_of, named, replace_cells

# Name of a layer, as its parameters have it -> channels: of a convolution or dense layer out and in, of a batch norm
# its own. 0 is the number that the network gives it.
Channels = Mapping[str, Sequence[int]]
_LAYERS = (nn.Conv2d, nn.Dense, nn.BatchNorm2d)


def parsed(entries: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Channels from text: `LAYER=OUTxIN`, of batch norms `LAYER=N`."""
    pairs = (entry.rpartition("=") for entry in entries)
    return {name: tuple(map(int, numbers.split("x"))) for name, _, numbers in pairs}


def written(channels: Channels) -> tuple[str, ...]:
    """The reverse of `parsed`."""
    return tuple(f"{name}={'x'.join(map(str, numbers))}" for name, numbers in channels.items())


def fitting(network: nn.Cell, arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The channels of a network's layers by which it takes some arrays, its parameters' values by their names."""
    found: dict[str, tuple[int, ...]] = {}
    for name, cell in layers_of(network).items():
        if isinstance(cell, nn.BatchNorm2d):
            found[name] = (len(arrays[f"{name}.gamma"]),)
            continue
        outputs, inputs = arrays[f"{name}.weight"].shape[:2]
        if isinstance(cell, nn.Conv2d) and not is_depthwise(cell):
            inputs *= cell.group  # the array has those of one group
        # Of a depthwise convolution, an array says how many outputs there are.
        found[name] = (outputs, outputs * cell.in_channels // cell.out_channels if is_depthwise(cell) else inputs)
    return found


def layers_of(network: nn.Cell) -> dict[str, nn.Cell]:
    """The layers of a network that have channels, by the names that their parameters have."""
    return {name_of(cell): cell for _, cell in network.cells_and_names() if isinstance(cell, _LAYERS)}


def channels_of(network: nn.Cell) -> dict[str, tuple[int, ...]]:
    """The channels of each layer that a network has."""
    return {name: _channels(cell) for name, cell in layers_of(network).items()}


def _channels(cell: nn.Cell) -> tuple[int, ...]:
    if isinstance(cell, nn.BatchNorm2d):
        return (cell.num_features,)
    return (cell.out_channels, cell.in_channels)


def narrow(network: nn.Cell, channels: Channels) -> None:
    """Give layers of a network fewer channels, with fresh weights of their own shapes. Changes the network.

    A depthwise convolution stays one. Raises ValueError for a layer that the network does not have, or numbers that it
    cannot have.
    """
    layers = layers_of(network)
    replacements = {}
    for name, wanted in channels.items():
        if name not in layers:
            raise ValueError(f"{name} is no layer of this network")
        full = _channels(layers[name])
        if len(wanted) != len(full) or not all(0 <= new <= old for new, old in zip(wanted, full, strict=True)):
            raise ValueError(f"{name} has {_words(full)} channels, and cannot have {_words(wanted)}")
        new = tuple(count or whole for count, whole in zip(wanted, full, strict=True))
        if new != full:
            replacements[id(layers[name])] = _narrower(layers[name], new)
    modules = [cell for _, cell in network.cells_and_names() if isinstance(cell, GhostMaps) and cell.cut is not None]
    before = {id(module): _maps(module) for module in modules}
    replace_cells(network, replacements)
    if isinstance(network, Network) and isinstance(classifier := network.get_classifier(), nn.Dense):
        network.num_features = classifier.in_channels
    for module in modules:
        assert module.cut is not None
        left, surplus = module.cut
        module.cut = [left - before[id(module)] + _maps(module), surplus]


def _maps(module: GhostMaps) -> int:
    """Intrinsic maps and ghosts of a Ghost module, with those that are cut off."""
    parts = (module.primary_conv, module.cheap_operation)
    return sum(
        next(cell.out_channels for _, cell in part.cells_and_names() if isinstance(cell, nn.Conv2d)) for part in parts
    )


def _narrower(old: nn.Cell, wanted: tuple[int, ...]) -> nn.Cell:
    """A layer like another one, with other channels, whose parameters have the same names."""
    if isinstance(old, nn.BatchNorm2d):
        # The cell has what is kept of a statistic, its constructor takes what is new.
        new = nn.BatchNorm2d(wanted[0], eps=old.eps, momentum=1 - old.momentum)
        new.use_batch_statistics = old.use_batch_statistics
    elif isinstance(old, nn.Dense):
        new = nn.Dense(wanted[1], wanted[0], has_bias=old.has_bias)
    else:
        new = convolution_like(old, wanted[0], wanted[1], old.has_bias)
    return named(new, name_of(old))


def _words(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
