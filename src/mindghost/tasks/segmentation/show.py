"""What a network says of the pixels of an image: share of each class, pictures, masks as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...runs.files import Color
from .. import show
from ..show import Guess

_ENTRIES = 256  # of a palette


def shares(mask: NDArray[Any], classes: Sequence[str], most: int | None) -> tuple[Guess, ...]:
    """The classes that pixels of a mask have, the largest share first, up to `most`; of equal ones the lower label."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
    return tuple(Guess(label, classes[label], int(counts[label]) / mask.size) for label in order[:most])


def draw(pixels: NDArray[Any], answers: Sequence[Guess], mask: NDArray[Any], colors: Sequence[Color]) -> Image.Image:
    """An image, uint8 (h, w, 3), mixed with its classes' colours, these alone beside it, and their shares below."""
    colored = painted(mask, colors)
    sheet = np.hstack([mixed(pixels, colored), colored])
    return show.draw(sheet, answers, [colors[answer.label] for answer in answers])


def mixed(pixels: NDArray[Any], colored: NDArray[Any]) -> NDArray[Any]:
    """The mean of two pictures, uint8 (h, w, 3)."""
    return ((pixels.astype(np.uint16) + colored + 1) // 2).astype(np.uint8)


def painted(mask: NDArray[Any], colors: Sequence[Color]) -> NDArray[Any]:
    """The colours of a mask's classes: uint8 (h, w, 3)."""
    return np.array(colors, np.uint8)[mask]


def picture_of(mask: NDArray[Any], colors: Sequence[Color]) -> Image.Image:
    """A mask as the image file that it is trained with: indices with a palette of the colours.

    Where there are more classes than an index has room for, it is gray with 16 bits.
    """
    if mask.dtype != np.uint8:
        return Image.fromarray(mask)
    picture = Image.fromarray(mask, "P")
    # Of full length: Pillow would pack several pixels into a byte, which not all programs read.
    picture.putpalette([part for color in colors for part in color] + [0, 0, 0] * (_ENTRIES - len(colors)))
    return picture
