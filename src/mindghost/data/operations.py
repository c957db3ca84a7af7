"""Image operations: pixels by MindSpore's own operators, every draw from the generator that is passed in.

A random operation is called with (image, rng). Images are uint8 (height, width, 3), unless it says otherwise.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import vision

if TYPE_CHECKING:
    from . import jpeg
    from .images import JpegImage

_CROP_ATTEMPTS = 10
_MOST_RESIZED = 1 << 27  # pixels of a resized image: 400 MB


class Normalize:
    """(image - mean) / std: bit by bit MindSpore's Normalize and HWC2CHW, but faster and without the GIL.

    Attributes:
        table: what each 8-bit value becomes, float32 (len(mean), 256).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], native: jpeg.Decoder | None = None) -> None:
        self._mean = np.array(mean, np.float32)[:, np.newaxis, np.newaxis]
        self._std = np.array(std, np.float32)[:, np.newaxis, np.newaxis]
        self._native = native
        self.table = (np.arange(256, dtype=np.float32) - self._mean[:, 0]) / self._std[:, 0]

    def __call__(self, image: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """(h, w, 3), any real type -> float32 (len(mean), h, w), in `out` if that is given."""
        if self._native is not None and image.dtype == np.uint8 and (out is None or out.flags.c_contiguous):
            return self._native.looked_up(image, self.table, out)
        result = channels_first(image, len(self._mean), out)
        result -= self._mean
        result /= self._std
        return result


def channels_first(image: NDArray[Any], channels: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """float32 (channels, h, w), the first `channels` of (h, w, 3): in `out`, or a fresh array."""
    result = np.empty((channels, *image.shape[:2]), np.float32) if out is None else out
    result[...] = image.transpose(2, 0, 1)[:channels]
    return result


# --- Random geometry and colour


class CoveringResize:
    """Resizes to the smallest size of the image's aspect ratio that covers (height, width); needs no draws.

    A square is covered by MindSpore's own rule: its side becomes the image's short side.

    Of an image so long that it would become gigabytes, only the middle is resized, as much as covers the size.
    """

    def __init__(self, size: tuple[int, int], interpolation: str) -> None:
        self._size, self._interpolation = size, interpolation

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image resized: uint8 (h, w, 3) -> (h', w', 3), both sides at least those of the size."""
        image = self._middle(image)
        height, width = self._size
        if height != width:
            return vision.resized(image, self._covering(*image.shape[:2]), self._interpolation)
        # An image of that size stays what it is; a pack's images have it.
        return image if min(image.shape[:2]) == height else vision.resized(image, height, self._interpolation)

    def size_of(self, rows: int, columns: int) -> tuple[int, int] | None:
        """What an image of this height and width is resized to; None for one of which only the middle is."""
        height, width = self._size
        if self._is_beyond(rows, columns):
            return None
        if height == width == min(rows, columns):
            return rows, columns
        if height != width:
            return self._covering(rows, columns)
        # MindSpore's own rule, in its precision.
        short, long = np.float32(min(rows, columns)), np.float32(max(rows, columns))
        other = int(long / short * np.float32(height))
        return (height, other) if rows < columns else (other, height)

    def _covering(self, rows: int, columns: int) -> tuple[int, int]:
        height, width = self._size
        if height * columns >= width * rows:
            return height, columns * height // rows
        return rows * width // columns, width

    def _is_beyond(self, rows: int, columns: int) -> bool:
        scale = max(self._size[0] / rows, self._size[1] / columns)
        return scale * rows * scale * columns > _MOST_RESIZED

    def _middle(self, image: NDArray[Any]) -> NDArray[Any]:
        (height, width), (rows, columns) = self._size, image.shape[:2]
        if not self._is_beyond(rows, columns):
            return image
        scale = max(height / rows, width / columns)
        # A pixel more on both sides, for the neighbours that are looked at.
        cut_rows, cut_columns = (
            max(0, side - math.ceil(wanted / scale) - 2) // 2 for side, wanted in ((rows, height), (columns, width))
        )
        return np.ascontiguousarray(image[cut_rows : rows - cut_rows, cut_columns : columns - cut_columns])


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area (a share `scale` of the image) and aspect ratio, resized to `size`, (height, width)."""

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: str

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """A drawn box of the image: uint8 (h, w, 3) -> (*size, 3)."""
        return self.resized(image, self.box(image.shape[0], image.shape[1], rng))

    def resized(self, image: NDArray[Any] | JpegImage, box: tuple[int, int, int, int]) -> NDArray[Any]:
        """A box of the image, as drawn by `box`: uint8 (h, w, 3) -> (*size, 3)."""
        top, left, height, width = box
        part = np.ascontiguousarray(image[top : top + height, left : left + width])
        return vision.resized(part, self.size, self.interpolation)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws (top, left, height, width) as MindSpore does: the aspect ratio log-uniformly, ten attempts.

        Without a box that fits, the largest central one of an allowed aspect ratio is taken.
        """
        low, high = self.ratio
        for _ in range(_CROP_ATTEMPTS):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
            box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < box_height <= height and 0 < box_width <= width:
                top = int(rng.integers(height - box_height + 1))
                left = int(rng.integers(width - box_width + 1))
                return top, left, box_height, box_width
        box_height = min(height, max(1, round(width / low)))
        box_width = min(width, max(1, round(height * high)))
        return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


@dataclass(frozen=True)
class PaddedCrop:
    """A random crop of `size`, (height, width), after padding the image with black on every side."""

    size: tuple[int, int]
    padding: int

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """A drawn crop of the image: (h, w, C) -> (*size, C)."""
        height, width = self.size
        rows, columns, channels = image.shape
        padding = self.padding
        padded = np.zeros((rows + 2 * padding, columns + 2 * padding, channels), image.dtype)  # np.pad takes longer
        padded[padding : padding + rows, padding : padding + columns] = image
        top = int(rng.integers(padded.shape[0] - height + 1))
        left = int(rng.integers(padded.shape[1] - width + 1))
        return np.ascontiguousarray(padded[top : top + height, left : left + width])


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors an image along an axis (1: left and right, 0: top and bottom) with a probability."""

    axis: int
    probability: float

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The image, mirrored or not: uint8 (h, w, C) -> the same shape."""
        return self.flipped(image) if self.drawn(rng) else image

    def drawn(self, rng: np.random.Generator) -> bool:
        """Whether an image is to be mirrored."""
        return bool(rng.random() < self.probability)

    def flipped(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image, mirrored: uint8 (h, w, C) -> the same shape."""
        return self._flip(image)

    @cached_property
    def _flip(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        return vision.operation("HorizontalFlip" if self.axis == 1 else "VerticalFlip")


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation (factors within 1 +- strength), hue (+- strength), in random order."""

    brightness: float
    contrast: float
    saturation: float
    hue: float = 0.0

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The image in drawn colours: uint8 (h, w, 3) -> the same shape."""
        adjustments = (
            ("AdjustBrightness", self.brightness, 1.0),
            ("AdjustContrast", self.contrast, 1.0),
            ("AdjustSaturation", self.saturation, 1.0),
            ("AdjustHue", self.hue, 0.0),
        )
        for position in rng.permutation(len(adjustments)):
            adjust, strength, neutral = adjustments[position]
            if strength > 0:
                lowest = max(0.0, neutral - strength) if neutral else -strength
                image = getattr(vision.module(), adjust)(float(rng.uniform(lowest, neutral + strength)))(image)
        return image


# --- Random erasing


@dataclass(frozen=True)
class RandomErasing:
    """Fills a random box of the normalised image with a value, one a channel, or normal noise ("random").

    Area and aspect ratio are drawn uniformly, at most `attempts` times; a box as high or as wide as the
    image is not taken (MindSpore's meaning).
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    value: float | str | tuple[float, ...]
    attempts: int

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """float32 (C, H, W), changed in place."""
        if rng.random() >= self.probability:
            return image
        channels, height, width = image.shape
        for _ in range(self.attempts):
            area = rng.uniform(*self.scale) * height * width
            aspect = rng.uniform(*self.ratio)
            box_width = round(math.sqrt(area * aspect))
            box_height = round(box_width / aspect)
            if box_height < height and box_width < width:
                top = int(rng.integers(height - box_height + 1))
                left = int(rng.integers(width - box_width + 1))
                fill = self._fill((channels, box_height, box_width), rng)
                image[:, top : top + box_height, left : left + box_width] = fill
                break
        return image

    def _fill(self, shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[Any]:
        if isinstance(self.value, str):
            return rng.standard_normal(shape)
        return np.reshape(self.value, (-1, 1, 1))


# --- mindcv's augmentation policies


@dataclass(frozen=True)
class SeededPolicy:
    """A policy of mindcv, made a function of our generator."""

    policy: Callable[[NDArray[Any]], NDArray[Any]]

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The image as the policy changes it: uint8 (h, w, 3) -> the same shape."""
        with _seeded_globals(rng):
            return self.policy(image)


_globals_lock = threading.Lock()


def _renew_lock() -> None:
    global _globals_lock
    _globals_lock = threading.Lock()


# A worker process may be forked while another thread of the parent holds the lock.
os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _seeded_globals(rng: np.random.Generator) -> Iterator[None]:
    """Seeds `random` and `numpy.random`, which mindcv draws from; in the main process their states are restored.

    In a worker process nothing else draws from them, and restoring takes longer than many an operation. With one
    worker the pipeline runs on a thread of the main process: the lock keeps two pipelines apart, and training itself
    draws from neither while an epoch runs.
    """
    with _globals_lock:
        in_worker = multiprocessing.parent_process() is not None
        states = None if in_worker else (random.getstate(), np.random.get_state())
        random.seed(int(rng.integers(2**63)))
        np.random.seed(int(rng.integers(2**32)))
        try:
            yield
        finally:
            if states is not None:
                random.setstate(states[0])
                np.random.set_state(states[1])
