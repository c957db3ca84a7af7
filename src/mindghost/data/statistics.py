"""Numbers of the images of a split: mean and deviation of the pixels that a network sees, sizes, counts of classes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..process import resources
from . import transforms
from .evaluation import workers_of
from .parts import in_parts

if TYPE_CHECKING:
    from ..config import Config
    from .samples import Samples

_LEVELS = 256
PixelsOf = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Sizes:
    """Heights or widths of images, in pixels."""

    smallest: int
    median: float
    largest: int

    @classmethod
    def of(cls, sizes: list[int]) -> Sizes:
        """Of one size at least."""
        return cls(min(sizes), statistics.median(sizes), max(sizes))


@dataclass(frozen=True)
class Statistics:
    """What is known of the images of a split.

    Attributes:
        images: how many there are.
        counts: how many images each class has, in label order; one with several labels counts for each.
        mean, std: of each channel, on the scale 0 to 255: of all pixels that evaluation hands to the normalisation.
        heights, widths: of the images as they lie on the disk.
    """

    images: int
    counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    heights: Sizes
    widths: Sizes


def of_samples(
    config: Config,
    samples: Samples,
    pixels_of: PixelsOf | None = None,
    seen: Callable[[int], object] = lambda images: None,
) -> Statistics:
    """The statistics of all samples.

    Pixels are those of evaluation, without augmentation. They are counted by their levels, in integers: the numbers are
    exact, but for the rounding of each at the end, and depend on no order.

    Args:
        config: says how images are prepared.
        samples: of the split.
        pixels_of: what a network sees of an image (`Task.eval_pixels`); None: as `transforms.eval_pixels` has it.
        seen: called with the number of images of each step.

    Raises UserError for an image that cannot be read.
    """
    levels = np.zeros((config.in_channels, _LEVELS), np.int64)
    heights, widths = [], []
    for part, sizes in _parts(config, samples, pixels_of or transforms.eval_pixels(config)):
        levels += part
        heights += [height for height, _ in sizes]
        widths += [width for _, width in sizes]
        seen(len(sizes))
    moments = [_moments(counts) for counts in levels]
    return Statistics(
        images=len(samples),
        counts=_counts(samples),
        mean=tuple(mean for mean, _ in moments),
        std=tuple(std for _, std in moments),
        heights=Sizes.of(heights),
        widths=Sizes.of(widths),
    )


def _parts(
    config: Config, samples: Samples, pixels_of: PixelsOf
) -> Iterator[tuple[NDArray[Any], list[tuple[int, int]]]]:
    """Levels of the pixels and sizes of the images, some images at a time."""

    def count(some: range) -> tuple[NDArray[Any], list[tuple[int, int]]]:
        levels = np.zeros((config.in_channels, _LEVELS), np.int64)
        sizes = []
        for index in some:
            with resources.spent_on(samples.name(index)):
                image = samples.read(index)
                pixels = pixels_of(np.asarray(transforms.as_rgb(image, config.in_channels)))
            sizes.append((image.shape[0], image.shape[1]))
            for channel, counts in enumerate(levels):
                counts += np.bincount(pixels[..., channel].ravel(), minlength=_LEVELS)
        return levels, sizes

    return in_parts(len(samples), workers_of(config.num_parallel_workers), count)


def _moments(counts: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation (of all, not of a sample) of pixels that are counted by level."""
    number, total, squares = (
        sum(int(count) * level**power for level, count in enumerate(counts)) for power in range(3)
    )
    mean = Fraction(total, number)
    return float(mean), math.sqrt(Fraction(squares, number) - mean**2)


def _counts(samples: Samples) -> tuple[int, ...]:
    if samples.labels.ndim == 1:
        found = np.bincount(samples.labels, minlength=len(samples.classes))
    else:
        found = (samples.labels > 0).sum(axis=0)
    return tuple(int(count) for count in found)
