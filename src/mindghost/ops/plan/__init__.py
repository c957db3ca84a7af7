"""A whole network for inference as one call of our C++ library, without any operator of MindSpore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .native import NativePlan
from .program import Finished

# `cells` imports MindSpore, which a program that is there already does without.
if TYPE_CHECKING:
    from mindspore import nn


def knows(network: nn.Cell) -> bool:
    """Whether a plan can be made of a network, as far as the kinds of its cells say."""
    from .cells import CELLS, NETWORKS

    return type(network) in NETWORKS and all(type(cell) in CELLS for _, cell in network.cells_and_names())


def of(network: nn.Cell, library: Path, keep: Callable[[Finished], None] | None = None) -> NativePlan | None:
    """What a float32 network computes in evaluation with the weights that it has now; None where a part is unknown.

    Args:
        network: as `models` makes it: our operators are not in it (`ops.rewrite`).
        library: file of the C++ operators.
        keep: is given the program, if there is one.
    """
    from .cells import UnknownCell, program_of

    if not knows(network):
        return None
    try:
        program = program_of(network)
    except UnknownCell:
        return None
    if keep is not None:
        keep(program)
    return NativePlan(library, program)
