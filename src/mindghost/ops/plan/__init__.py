"""A whole network for inference as one call of our C++ library, without any operator of MindSpore."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mindspore import nn

from .cells import CELLS, NETWORKS, UnknownCell, program_of
from .native import NativePlan


def knows(network: nn.Cell) -> bool:
    """Whether a plan can be made of a network, as far as the kinds of its cells say."""
    return type(network) in NETWORKS and all(type(cell) in CELLS for _, cell in network.cells_and_names())


class Form(NamedTuple):
    """How plans are made.

    Attributes:
        library: file of the C++ operators.
        bfloat16: whether the products of 1x1 convolutions are those of values that were rounded to bfloat16; their sums
            and all else are in float32.
    """

    library: Path
    bfloat16: bool = False


def of(network: nn.Cell, form: Form) -> NativePlan | None:
    """What a float32 network computes in evaluation with the weights that it has now; None where a part is unknown.

    `network` is as `models` makes it: our operators are not in it (`ops.rewrite`).
    """
    if not knows(network):
        return None
    try:
        return NativePlan(form.library, program_of(network), form.bfloat16)
    except UnknownCell:
        return None
