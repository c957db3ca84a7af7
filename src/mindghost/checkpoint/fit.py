"""Whether the entries of a weight file are those of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..process.display import some


@dataclass(frozen=True)
class Differences:
    """How what a file holds and what a network has differ; false where they do not.

    Attributes:
        missing: parameters of the network that the file lacks.
        surplus: entries of the file that the network lacks.
        unequal: parameters of another shape, with that in the file and that in the network.
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    unequal: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def between(cls, weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> Differences:
        """Compare names and shapes, from both sides."""
        return cls(
            missing=tuple(name for name in shapes if name not in weights),
            surplus=tuple(name for name in weights if name not in shapes),
            unequal={
                name: (weights[name].shape, tuple(shape))
                for name, shape in shapes.items()
                if name in weights and weights[name].shape != tuple(shape)
            },
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.unequal)

    def __str__(self) -> str:
        unequal = [f"{name} {found} instead of {wanted}" for name, (found, wanted) in self.unequal.items()]
        kinds = (("missing", self.missing), ("not in the network", self.surplus), ("of another shape", unequal))
        return "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds if names)


def check_fit(
    path: Path, differences: Differences, keys: Mapping[str, str], prefix: str = "", key: str = "model"
) -> None:
    """Raise UserError where there are differences.

    `keys` says which option sets the shapes of which cells, `prefix` what was taken off the file's names, `key` which
    option names the network.
    """
    if not differences:
        return
    if prefix and not (differences.missing or differences.unequal):
        raise UserError(
            f"{path}: holds the network under {prefix}, and more beside it ({differences}); have the network's weights "
            "saved alone"
        )
    to_blame = key
    if not (differences.missing or differences.surplus):
        to_blame = next(
            (shape for cell, shape in keys.items() if all(name.startswith(cell) for name in differences.unequal)), key
        )
    raise UserError(
        f"{path}: does not fit the network ({differences}{taken_off(prefix)}); give the {to_blame} that the file was "
        "made with"
    )


def taken_off(prefix: str) -> str:
    """What a message says of the prefix that was taken off the names in a file; nothing where there was none."""
    return f"; took off the prefix {prefix}" if prefix else ""


def as_float32(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A copy in the networks' type. Raises UserError for what is no floating-point number, or too large for it."""
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: {name} holds {array.dtype}; expected floating-point weights")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise UserError(f"{path}: {name} holds values that float32 cannot; use another checkpoint")
    return converted
