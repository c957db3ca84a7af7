"""Sizes of images and masks: how one that is as large as it likes fits into what the network gets, and back.

Pixels are compared as PyTorch's `align_corners=False` does: pixel i of n is at (i + 0.5) / n.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import vision

Size = tuple[int, int]  # height and width
_ALL = slice(None)
_AT_ONCE = 1 << 20  # logits that `bands` has in memory


def fitted(size: Size, within: Size, factor: float = 1.0) -> Size:
    """The largest size of an image's own aspect ratio that lies within another one, times a factor.

    Each side is rounded to the nearest number, and is one pixel at least.
    """
    scale = factor * min(wanted / own for own, wanted in zip(size, within, strict=True))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def resized(image: NDArray[Any], size: Size, interpolation: str) -> NDArray[Any]:
    """An image, uint8 (h, w, 3), at another size; one that has it already is the same array."""
    return image if image.shape[:2] == size else vision.resized(image, size, interpolation)


def nearest(mask: NDArray[Any], size: Size, rows: slice, columns: slice) -> NDArray[Any]:
    """A box of a mask, (h, w), at another size: each pixel is the one of the mask that its middle lies in."""
    inside, across = (_nearest(own, new) for own, new in zip(mask.shape, size, strict=True))
    return mask[inside[rows, np.newaxis], across[columns]]


def _nearest(own: int, new: int) -> NDArray[Any]:
    """Of each of `new` pixels, the one of `own` that it lies in."""
    return ((2 * np.arange(new, dtype=np.int64) + 1) * own) // (2 * new)


def brought_back(outputs: NDArray[Any], size: Size) -> NDArray[Any]:
    """What a network said of an image that was `fitted` into its input, at the image's own size.

    Args:
        outputs: float32, (classes, height, width), those of the padding among them.
        size: of the image.

    Returns float32, (classes, *size): interpolated bilinearly.
    """
    height, width = fitted(size, (outputs.shape[1], outputs.shape[2]))
    return bilinear(outputs[:, :height, :width], size)


def predicted(outputs: NDArray[Any], size: Size) -> NDArray[Any]:
    """The class of each pixel of an image, uint8, or uint16 where they are many: (height, width).

    It is that of the largest logit (see `brought_back`), of equal ones the lowest.
    """
    found = np.empty(size, kind_of(len(outputs)))
    for rows, logits in bands(outputs, size):
        found[rows] = logits.argmax(axis=0)
    return found


def bands(outputs: NDArray[Any], size: Size) -> Iterator[tuple[slice, NDArray[Any]]]:
    """What `brought_back` gives, some rows at a time: a large image may have more logits than there is memory."""
    height, width = fitted(size, (outputs.shape[1], outputs.shape[2]))
    rows = max(1, _AT_ONCE // (len(outputs) * size[1]))
    for top in range(0, size[0], rows):
        band = slice(top, top + rows)
        yield band, bilinear(outputs[:, :height, :width], size, band)


def kind_of(classes: int) -> type[np.uint8 | np.uint16]:
    """The type of a mask of so many classes."""
    return np.uint8 if classes <= np.iinfo(np.uint8).max + 1 else np.uint16


def bilinear(values: NDArray[Any], size: Size, rows: slice = _ALL) -> NDArray[Any]:
    """Float32 (channels, h, w) at another size, as PyTorch's `interpolate` makes it with `align_corners=False`.

    `rows`: which of the new rows are wanted.
    """
    for axis, new, part in zip((1, 2), size, (rows, _ALL), strict=True):
        if values.shape[axis] == new:
            values = values[:, part] if axis == 1 else values
        else:
            low, high, share = (column[part] for column in _neighbours(values.shape[axis], new))
            share = share.reshape((-1, 1) if axis == 1 else (-1,))
            below = np.take(values, low, axis)
            above = np.take(values, high, axis)
            # In this form, equal neighbours give what they are.
            above -= below
            above *= share
            below += above
            values = below
    return values


@lru_cache(256)
def _neighbours(own: int, new: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each of `new` pixels, the two of `own` that it lies between, and how near it is to the second."""
    places = np.clip((np.arange(new) + 0.5) * (own / new) - 0.5, 0, own - 1)
    low = places.astype(np.int64)
    return low, np.minimum(low + 1, own - 1), (places - low).astype(np.float32)
