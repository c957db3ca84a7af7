"""Bilinear resizing in one pass with what comes before and after it: decoding, cutting, flipping, normalising."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore.dataset import vision
from numpy.typing import NDArray

from . import images, jpeg
from .operations import CoveringResize, RandomFlip, RandomResizedCrop


@dataclass(frozen=True)
class OnePass:
    """The pass, with the pixels of MindSpore's operators one after the other, bit for bit; None where it can't be had.

    Attributes:
        interpolation: only the bilinear one is done here.
        native: of images that are no JPEG files. `JpegImage` has its own.
    """

    interpolation: vision.Inter
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
        if self.interpolation is not vision.Inter.BILINEAR or (out is not None and not out.flags.c_contiguous):
            return None
        if isinstance(image, images.JpegImage):
            return image.resized(plan, table, out)
        if self.native is None or image.dtype != np.uint8 or image.shape[2:] != (3,):
            return None
        return self.native.resized(np.ascontiguousarray(image), plan, table, out)


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
        """A drawn crop: uint8 (h, w, 3) -> (*size, 3). In one pass with a table: float32 (channels, *size), in `out`."""
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
    """The plan of `cover` and of a crop of `size` from the middle of it; None where `cover` takes less than all of it."""
    height, width = image.shape[:2]
    covered = cover.size_of(height, width)
    if covered is None:
        return None
    top, left = ((whole - part) // 2 for whole, part in zip(covered, size, strict=True))
    return jpeg.Plan((0, 0, height, width), covered, (top, left, *size))
