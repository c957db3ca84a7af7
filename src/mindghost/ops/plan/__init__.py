"""A whole network for inference as one call of our C++ library, without any operator of MindSpore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import UserError
from .native import NativePlan
from .program import Finished

# `cells` imports MindSpore, which a program that is there already does without.
if TYPE_CHECKING:
    from mindspore import nn


def knows(network: nn.Cell) -> bool:
    """Whether a plan can be made of a network, as far as the kinds of its cells say."""
    from . import cells, pixels

    known = (*cells.CELLS, *pixels.CELLS)
    is_one = type(network) in (*cells.NETWORKS, *pixels.NETWORKS)
    return is_one and all(type(cell) in known for _, cell in network.cells_and_names())


class Form(NamedTuple):
    """How plans are made.

    Attributes:
        library: file of the C++ operators.
        bfloat16: whether the products of 1x1 convolutions are those of values that were rounded to bfloat16; their sums
            and all else are in float32.
    """

    library: Path
    bfloat16: bool = False


def missing(network: str) -> UserError:
    """What to raise for a network that is to be evaluated in bfloat16, and does not become a plan."""
    return UserError(
        f"val_amp_level: bfloat16 is for networks that run as a plan, and {network} does not; set it to O0"
    )


def program(network: nn.Cell) -> Finished | None:
    """What a float32 network computes in evaluation with the weights that it has now; None where a part is unknown.

    `network`: as `models` makes it: our operators are not in it (`ops.rewrite`).
    """
    from . import cells, pixels

    if not knows(network):
        return None
    try:
        return pixels.program_of(network) if type(network) in pixels.NETWORKS else cells.program_of(network)
    except cells.UnknownCell:
        return None


def of(network: nn.Cell, form: Form, keep: Callable[[Finished], None] | None = None) -> NativePlan | None:
    """The same, ready to run.

    Args:
        network: see `program`.
        form: how the plan is made.
        keep: is given the program, if there is one.
    """
    made = program(network)
    if made is None:
        return None
    if keep is not None:
        keep(made)
    return NativePlan(form.library, made, form.bfloat16)
