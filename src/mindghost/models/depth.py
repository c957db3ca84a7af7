"""How deep in a network a parameter lies: by stages, and by layers.

Both go by the names of parameters, so that other cells in the place of a network's own (`ops.rewrite`, mixed
precision) change nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NamedTuple

from .network import RegistryNetwork

# Of a block in a list of blocks; of a part of a stage of G-Ghost-RegNet.
_BLOCK = re.compile(r"(\d+)\.[^.]+\.")
_GHOST_STAGE = re.compile(r"(base|layers|merge|cheap|end)\.(\d+)?")


class Stage(NamedTuple):
    """A part of a network that ends with one of its feature maps.

    Attributes:
        name: for people.
        parameters: names, batch-norm statistics among them.
    """

    name: str
    parameters: tuple[str, ...]


def stages(network: RegistryNetwork) -> list[Stage]:
    """All that comes before the head: stem, then up to each map of `feature_info`, then what follows the last.

    The stem is what comes before the first block. What follows the last map (GhostNet's last two convolutions, VGG's
    hidden layer) is a stage of its own where there is something. A map without parameters of its own makes no stage.
    """
    places = {name: _place(network, name) for name in network.before_head()}
    first_block = min(place for name, place in places.items() if place and not _in_stem(network, name))
    taps = {_place(network, entry["name"]): entry["reduction"] for entry in network.feature_info}
    ends = sorted(place for place in taps if place >= first_block)
    found: dict[int, list[str]] = {}
    for name, place in places.items():
        index = 0 if _in_stem(network, name) else 1 + (bisect_left(ends, place) if place else len(ends))
        found.setdefault(index, []).append(name)
    titles = ["the stem", *(f"stride {taps[end]}" for end in ends), "what follows"]
    return [Stage(titles[index], tuple(found[index])) for index in sorted(found)]


def layers(network: RegistryNetwork) -> dict[str, int]:
    """Number of the layer that each parameter belongs to, by name: timm's numbers (`group_matcher`).

    0 is the stem; then each block is one, in the order in which they run; the head (the classifier, or decoder and
    classifier) is the last. What lies between the last block and the head counts with that block.
    """
    keys = {name: _layer(network, name) for name in network.before_head()}
    ordered = sorted({key for key in keys.values() if key})
    number = {key: index for index, key in enumerate(ordered)}
    numbers = {name: number.get(key, len(ordered) - 1) for name, key in keys.items()}
    return {parameter.name: numbers.get(parameter.name, len(ordered)) for parameter in network.get_parameters()}


def _in_stem(network: RegistryNetwork, name: str) -> bool:
    """Whether a parameter belongs to a single layer of the body: what is made of blocks has longer names."""
    cell, _, rest = name.removeprefix(network.prefix).partition(".")
    return cell in network.body and "." not in rest


def _place(network: RegistryNetwork, name: str) -> tuple[int, ...]:
    """Where the cell with this name, or with this parameter, runs, as fine as `feature_info` names cells.

    Its place in the body, and its number there if it is one of several; nothing behind the body.
    """
    cell, _, rest = name.removeprefix(network.prefix).partition(".")
    if cell not in network.body:
        return ()
    fine = any(entry["name"].startswith(f"{cell}.") for entry in network.feature_info)
    return (network.body.index(cell), int(rest.partition(".")[0])) if fine else (network.body.index(cell),)


def _layer(network: RegistryNetwork, name: str) -> tuple[int, ...]:
    """The place of the block that a parameter belongs to: one tuple for all of the stem, nothing behind the body."""
    if _in_stem(network, name):
        return (-1,)
    place = _place(network, name)
    inside = name.removeprefix(network.prefix).split(".", len(place))[-1]
    if block := _BLOCK.match(inside):
        return (*place, int(block[1]))
    if part := _GHOST_STAGE.match(inside):
        # The first block, those of few channels, and the last one together with what else goes into it.
        order = {"base": 0, "layers": 1}.get(part[1], 2)
        return (*place, order, int(part[2]) if part[1] == "layers" else 0)
    return place
