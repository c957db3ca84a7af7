"""A whole network for inference as one call of our C++ library, without any operator of MindSpore."""

from __future__ import annotations

from pathlib import Path

from mindspore import nn

from .cells import CELLS, NETWORKS, UnknownCell, program_of
from .native import NativePlan


def knows(network: nn.Cell) -> bool:
    """Whether a plan can be made of a network, as far as the kinds of its cells say."""
    return type(network) in NETWORKS and all(type(cell) in CELLS for _, cell in network.cells_and_names())


def of(network: nn.Cell, library: Path) -> NativePlan | None:
    """What a float32 network computes in evaluation with the weights that it has now; None where a part is unknown.

    Args:
        network: as `models` makes it: our operators are not in it (`ops.rewrite`).
        library: file of the C++ operators.
    """
    if not knows(network):
        return None
    try:
        return NativePlan(library, program_of(network))
    except UnknownCell:
        return None
