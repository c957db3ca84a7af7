"""Colours that are easy to tell apart, for people who see all of them and for those who do not.

The first eight are Okabe's and Ito's, which are made for that (https://jfly.uni-koeln.de/color). Each further one is
that of a grid of colours which is farthest from all before it: by the difference in CIE L*a*b* that is left to whoever
sees it least, of people with normal vision, without red cones, without green ones, without blue ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runs.files import Color

_FIRST: tuple[Color, ...] = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
# Of red, green and blue. From 0 to 255, as many as there may be classes.
_LEVELS = 17
# What is seen of linear RGB: all; without one kind of cones (Machado, Oliveira and Fernandes, 2009, severity 1).
_VISION = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
# Linear RGB of sRGB -> CIE XYZ, divided by those of its white.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_XYZ /= _XYZ.sum(axis=1, keepdims=True)


@lru_cache(8)
def distinct(count: int) -> tuple[Color, ...]:
    """So many colours, all different; fewer are the first of more."""
    levels = np.linspace(0, 255, _LEVELS).round()
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    candidates, chosen = seen(grid), list(_FIRST[:count])
    distances = np.full(len(grid), np.inf)
    for known in seen(np.array(_FIRST, np.float64)):
        distances = np.minimum(distances, differences(candidates, known))
    while len(chosen) < count:
        best = int(distances.argmax())
        red, green, blue = grid[best].astype(int).tolist()
        chosen.append((red, green, blue))
        distances = np.minimum(distances, differences(candidates, candidates[best]))
    return tuple(chosen)


def seen(colors: NDArray[Any]) -> NDArray[Any]:
    """Colours, (n, 3) from 0 to 255, as each kind of people sees them, in L*a*b*: (n, kinds, 3)."""
    shares = colors / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(np.einsum("kij,nj->nki", _VISION, linear), 0, 1) @ _XYZ.T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def differences(colors: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """How much colours differ from another one to whoever sees that least, (n,): of `seen`, (n, kinds, 3), (kinds, 3).

    Rounded, so that all machines agree.
    """
    return np.linalg.norm(colors - other, axis=-1).min(axis=-1).round(6)
