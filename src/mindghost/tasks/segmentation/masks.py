"""A mask: an image file whose pixels are the indices of classes, by its values or by its places in a palette."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data import images
from ...errors import UserError
from ...files import paths
from ...process.display import some

# Of evaluated masks: a pixel that does not count, whatever `ignore_index` is.
IGNORED = -1
# More classes, no set has: such values are instances, or colours.
MOST_CLASSES = 4_096
_REMEDY = "give it a mask, or leave the image out"
# What Pillow calls pixels of one number: 1 bit, 8 bits, a palette, 16 bits.
_SMALL, _LARGE = ("1", "L", "P"), ("I", "I;16", "I;16B", "I;16L")
_WANTED = "one number a pixel, the index of its class (a gray or a palette PNG)"


def read(path: str) -> NDArray[Any]:
    """The classes in a mask: uint8 (height, width), or int32 where the file has 16 bits a pixel.

    Of a palette, the indices are taken, never the colours; of one bit, 0 and 1.

    Raises UserError for a file that cannot be read, or is no image of indices.
    """
    with paths.open_file(path, _REMEDY) as file:
        found: NDArray[Any] = images.opened(file, path, _indices)
    return found


def _indices(image: Image.Image, name: str) -> NDArray[Any]:
    if image.format == "JPEG":
        raise UserError(f"{name}: a JPEG file, which keeps no exact values; save masks as PNG, made from the originals")
    if image.mode in _SMALL:
        return np.asarray(image).astype(np.uint8, copy=False)
    if image.mode in _LARGE:
        return np.asarray(image).astype(np.int32)
    remedy = (
        "save one of its channels, which are equal" if _is_gray(image) else "turn each colour into its class's index"
    )
    raise UserError(f"{name}: a colour image ({image.mode}), but masks have {_WANTED}; {remedy}")


def _is_gray(image: Image.Image) -> bool:
    """Whether an image of several channels has no colours."""
    if image.mode not in ("RGB", "RGBA"):
        return image.mode == "LA"
    pixels = np.asarray(image)[..., :3]
    return bool((pixels == pixels[..., :1]).all())


def check_size(mask: NDArray[Any], size: tuple[int, int], name: str, image: str) -> None:
    """Raise UserError unless a mask has the height and width of its image."""
    if mask.shape == size:
        return
    said = f"{name}: {mask.shape[1]} x {mask.shape[0]} pixels, but its image {image} has {size[1]} x {size[0]}"
    if mask.shape == size[::-1]:
        raise UserError(f"{said} as it is stored: perhaps it is shown turned (EXIF); turn the one as the other is")
    raise UserError(f"{said}; make both of one size")


def counted(mask: NDArray[Any], name: str) -> dict[int, int]:
    """How many pixels of a mask have each value, of those that are there. Raises UserError for values of no classes."""
    highest = int(mask.max())
    if highest > np.iinfo(np.uint16).max or int(mask.min()) < 0:
        raise UserError(f"{name}: pixels of {mask.min()} to {highest}; masks have {_WANTED}")
    counts = np.bincount(mask.ravel())
    found = np.flatnonzero(counts)
    if len(found) > MOST_CLASSES:
        raise UserError(f"{name}: {len(found):,} different values, up to {highest:,}; masks have {_WANTED}")
    return {int(value): int(counts[value]) for value in found}


def check_values(values: Mapping[int, int], classes: int, ignored: int, name: str, more: str = "") -> None:
    """Raise UserError where a mask has a value that is neither a class nor ignored.

    Args:
        values: of the mask, and how many pixels have each (see `counted`).
        classes: how many there are.
        ignored: `ignore_index`.
        name: of the mask, for messages.
        more: what else there is to say, behind the values.
    """
    beyond = [value for value in values if value >= classes and value != ignored]
    if beyond:
        pixels = sum(values[value] for value in beyond)
        known = f"are {classes} classes (0 to {classes - 1})" if classes > 1 else "is 1 class (0)"
        raise UserError(
            f"{name}: {pixels:,} pixels of {some(beyond)}{more}, but there {known}, and ignore_index is {ignored}; "
            "correct the mask, num_classes or class_names"
        )


def encoded(values: Mapping[int, int]) -> str:
    """What `counted` found as a text; `decoded` reads it."""
    return " ".join(f"{value}:{count}" for value, count in values.items())


def decoded(text: str) -> dict[int, int]:
    """What `encoded` was given."""
    return {int(value): int(count) for value, count in (pair.split(":") for pair in text.split())}
