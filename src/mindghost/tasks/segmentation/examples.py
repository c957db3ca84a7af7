"""Image and mask -> what a network gets: augmented together, fitted into one size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...data import transforms
from ...data.examples import Examples, Labels
from . import geometry, masks

if TYPE_CHECKING:
    from .samples import MaskSamples


def fitting(config: Config) -> transforms.Transform:
    """The transform of evaluation: an image, uint8 (h, w, 3), is fitted into `image_resize`, normalised and padded.

    Called with (image, out=None) -> float32 (in_channels, height, width).
    """
    size, interpolation = transforms.input_size(config), config.interpolation
    pad = padding(config, size)

    def transform(image: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        wanted = geometry.fitted((image.shape[0], image.shape[1]), size)
        return pad(geometry.resized(image, wanted, interpolation), out)

    return transform


def fitting_pixels(config: Config) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The same without normalisation and padding: uint8 (h, w, 3) -> uint8 (height, width, in_channels)."""
    size, interpolation = transforms.input_size(config), config.interpolation
    transforms.normalisation(config)  # refuses channels that images do not have

    def transform(image: NDArray[Any]) -> NDArray[Any]:
        wanted = geometry.fitted((image.shape[0], image.shape[1]), size)
        return geometry.resized(image, wanted, interpolation)[..., : config.in_channels]

    return transform


def describe_fitting(config: Config) -> dict[str, object]:
    """The same for programs without this package; see `transforms.describe_evaluation`."""
    described = transforms.describe_evaluation(config)
    for key in ("center_crop", "center_crop_rule"):
        del described[key]
    return {
        **described,
        "resize": list(transforms.input_size(config)),
        "resize_rule": "the largest size of the same aspect ratio that lies within it: both sides times one factor, "
        "rounded to the nearest number, and at least 1",
        "padding": 0,
        "padding_rule": "at the right and below, up to that size, behind the normalisation",
        "output_rule": "logits of the padding are cut off; the others are resized bilinearly to the image's own size, "
        "of pixels (target + 0.5) * size / new size - 0.5, edges repeated; the largest of each pixel is its class",
    }


def padding(config: Config, size: geometry.Size) -> Callable[[NDArray[Any], NDArray[Any] | None], NDArray[Any]]:
    """What writes pixels, uint8 (h, w, 3), normalised, to the top left of an input of this size, and 0 elsewhere."""
    shape, normalized = (config.in_channels, *size), transforms.normalisation(config)

    def pad(pixels: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
        image = np.empty(shape, np.float32) if out is None else out
        height, width = pixels.shape[:2]
        normalized(pixels, image[:, :height, :width])
        image[:, height:] = 0
        image[:, :height, width:] = 0
        return image

    return pad


class MaskExamples(Examples):
    """Images, and a mask for each: in training int32 (height, width) as large as the image that the network gets.

    In evaluation, masks are a list: each of the size of its file, int16 (h, w), with `masks.IGNORED` for pixels that do
    not count.

    Training fits an image into `image_resize`, times a factor of `random_scale`; cuts a box of `crop_size` out of
    it, padded at the right and below where it is smaller; mirrors it by `hflip` and `vflip`; changes its colours. The
    mask goes with it: of its pixels the nearest is taken, and padding is `ignore_index`. In evaluation an image is
    fitted into `image_resize` and padded. Padding is 0 once the image is normalised: the mean.
    """

    def __init__(self, config: Config, samples: MaskSamples, training: bool) -> None:
        self._whole, self._size = transforms.input_size(config), transforms.input_size(config, training)
        self.shape = (config.in_channels, *self._size)
        self.label_size = math.prod(self._size)
        self._pairs, self._training = samples, training
        self._factors, self._ignored = config.random_scale, config.ignore_index
        self._interpolation, self._fit = config.interpolation, fitting(config)
        self._flips = [(axis, share) for axis, share in ((1, config.hflip), (0, config.vflip)) if share > 0]
        self._recolor = None if config.color_jitter is None else transforms.color_jitter(config.color_jitter)
        self._pad = padding(config, self._size)

    def labels(self, indices: NDArray[Any]) -> Labels:
        """Room for the masks."""
        return np.empty((len(indices), *self._size), np.int32) if self._training else [None] * len(indices)

    def fill(
        self, index: int, image: NDArray[Any], labels: Labels, place: int, rng: np.random.Generator | None = None
    ) -> None:
        """Write an image, and its mask to `labels`; see `Examples.fill`. Raises UserError where one can't be read."""
        samples = self._pairs
        pixels = np.asarray(transforms.as_rgb(samples.read(index), self.shape[0]))
        mask = samples.mask(index)
        masks.check_size(mask, (pixels.shape[0], pixels.shape[1]), samples.mask_name(index), samples.name(index))
        if rng is None:
            self._fit(pixels, image)
            labels[place] = np.where(mask == self._ignored, masks.IGNORED, mask.astype(np.int16))
        else:
            pixels, mask = self._augmented(pixels, mask, rng)
            self._pad(pixels, image)
            labels[place] = self._ignored
            labels[place][: mask.shape[0], : mask.shape[1]] = mask

    def _augmented(
        self, pixels: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """A box of a scaled image, uint8 (h, w, 3), perhaps mirrored and in other colours, and that of its mask."""
        size = geometry.fitted((pixels.shape[0], pixels.shape[1]), self._whole, rng.uniform(*self._factors))
        starts = [int(rng.integers(max(0, side - wanted) + 1)) for side, wanted in zip(size, self._size, strict=True)]
        rows, columns = (slice(start, start + side) for start, side in zip(starts, self._size, strict=True))
        pixels = geometry.resized(pixels, size, self._interpolation)[rows, columns]
        mask = geometry.nearest(mask, size, rows, columns)
        for axis, share in self._flips:
            if rng.random() < share:
                pixels, mask = np.flip(pixels, axis), np.flip(mask, axis)
        pixels = np.ascontiguousarray(pixels)
        return pixels if self._recolor is None else self._recolor(pixels, rng), mask
