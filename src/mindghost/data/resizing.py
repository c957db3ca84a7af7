"""Bilinear resizing in one pass with what comes before and after it: decoding, cutting, flipping, normalising."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images, jpeg, vision
from .operations import CoveringResize, RandomFlip, RandomResizedCrop

_TRIED = ((37, 53), (24, 31), (61, 40))  # a size of pixels, and those that they are resized to


@dataclass(frozen=True)
class OnePass:
    """The pass, with the pixels of MindSpore's operators one after the other, bit for bit; None where it can't be had.

    Attributes:
        interpolation: only the bilinear one is done here.
        native: of images that are no JPEG files; those have their own.
    """

    interpolation: str
    native: jpeg.Decoder | None

    def __call__(
        self,
        image: NDArray[Any] | images.JpegImage,
        plan: jpeg.Plan,
        table: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any] | None:
        """What `plan` makes of an image, uint8 (h, w, 3); see `jpeg.Decoder.resized`.

        Raises UserError and RunError for a file that can't be read.
        """
        if self.interpolation != vision.BILINEAR or (out is not None and not out.flags.c_contiguous):
            return None
        native = image.decoder if isinstance(image, images.JpegImage) else self.native
        if native is None or not agrees(native):
            return None
        if isinstance(image, images.JpegImage):
            return image.resized(plan, table, out)
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            return None
        return native.resized(np.ascontiguousarray(image), plan, table, out)


# What was found out about decoders in this process, or in an earlier one (`note`).
_agreeing: dict[jpeg.Decoder, bool] = {}


def agrees(native: jpeg.Decoder) -> bool:
    """Whether pixels are those of this MindSpore's operator: the OpenCV in it may have been built in another way."""
    if native not in _agreeing:
        _agreeing[native] = _compared(native)
    return _agreeing[native]


def note(native: jpeg.Decoder, agrees: bool) -> None:
    """Take an earlier process's word for it, which had the same library and the same MindSpore."""
    _agreeing[native] = agrees


def _compared(native: jpeg.Decoder) -> bool:
    (height, width), *sizes = _TRIED
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for size in sizes:
        found = native.resized(pixels, jpeg.Plan((0, 0, height, width), size, (0, 0, *size)))
        if found is None or not np.array_equal(found, vision.resized(pixels, size, vision.BILINEAR)):
            return False
    return True


@dataclass(frozen=True)
class CropAndFlip:
    """A random crop, resized, and flips: in one pass, or one after the other."""

    crop: RandomResizedCrop
    flips: Sequence[RandomFlip]
    one_pass: OnePass

    def __call__(
        self,
        image: NDArray[Any] | images.JpegImage,
        rng: np.random.Generator,
        table: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """A drawn crop: uint8 (h, w, 3) -> (*size, 3); in one pass with a table float32 (channels, *size), in `out`."""
        box = self.crop.box(image.shape[0], image.shape[1], rng)
        flips = [flip for flip in self.flips if flip.drawn(rng)]
        axes, size = {flip.axis for flip in flips}, self.crop.size
        plan = jpeg.Plan(box, size, (0, 0, *size), mirrored=1 in axes, upended=0 in axes)
        done = self.one_pass(image, plan, table, out)
        if done is not None:
            return done
        pixels = self.crop.resized(image, box)
        for flip in flips:
            pixels = flip.flipped(pixels)
        return pixels


def centre(cover: CoveringResize, size: tuple[int, int], image: NDArray[Any] | images.JpegImage) -> jpeg.Plan | None:
    """The plan of `cover` and of a crop of `size` from its middle; None where `cover` does not take all of an image."""
    height, width = image.shape[:2]
    covered = cover.size_of(height, width)
    if covered is None:
        return None
    top, left = ((whole - part) // 2 for whole, part in zip(covered, size, strict=True))
    return jpeg.Plan((0, 0, height, width), covered, (top, left, *size))
