"""Config -> mixed precision, by mindcv's own rules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mindcv.utils import amp
from mindspore import nn

from .errors import UserError


def apply(network: nn.Cell, level: str, cast_list: Sequence[str] | None = None) -> nn.Cell:
    """Make the network compute in float16 where `level` says so; parameters stay float32. Changes it in place.

    Args:
        network: the network, before it is first called.
        level: "O0" all float32; "O1" layers of a white list in float16 (convolutions, dense); "O2" all but those of
            a black list (normalisation); "O3" all.
        cast_list: names of `mindspore.nn` layers that take the place of the white or black list (MindCV's
            `amp_cast_list`).

    Raises:
        UserError: a name in the list that `mindspore.nn` does not have.
    """
    if cast_list is None or level in ("O0", "O3"):
        amp.auto_mixed_precision(network, level)
        return network
    layers = tuple(_layer(name) for name in cast_list)
    # mindcv's public function takes the list as a text that it evaluates as code.
    cast = amp._auto_white_list if level == "O1" else amp._auto_black_list
    cast(network, layers)
    return network


def _layer(name: str) -> type[nn.Cell]:
    layer = getattr(nn, name, None)
    if isinstance(layer, type) and issubclass(layer, nn.Cell):
        return layer
    names = [n for n in dir(nn) if isinstance(getattr(nn, n), type)]
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
    raise UserError(f"amp_cast_list: mindspore.nn has no layer {name!r}; the nearest is {nearest!r}")
