"""Image and mask -> what a network gets: augmented together, fitted into one size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...data import transforms
from ...data.examples import Examples, Labels
from . import geometry, masks

if TYPE_CHECKING:
    from .samples import MaskSamples


class MaskExamples(Examples):
    """Images, and a mask for each: in training int32 (height, width) as large as the image that the network gets.

    In evaluation, masks are a list: each of the size of its file, int16 (h, w), with `masks.IGNORED` for pixels that do
    not count.

    Training fits an image into `image_resize`, times a factor of `random_scale`; cuts a box of `image_resize` out of
    it, padded at the right and below where it is smaller; mirrors it by `hflip` and `vflip`; changes its colours. The
    mask goes with it: of its pixels the nearest is taken, and padding is `ignore_index`. In evaluation an image is
    fitted into `image_resize` and padded. Padding is 0 once the image is normalised: the mean.
    """

    def __init__(self, config: Config, samples: MaskSamples, training: bool) -> None:
        self._size = transforms.input_size(config)
        self.shape = (config.in_channels, *self._size)
        self.label_size = math.prod(self._size)
        self._pairs, self._training = samples, training
        self._factors, self._ignored = config.random_scale, config.ignore_index
        self._interpolation = transforms.interpolation(config)
        self._flips = [(axis, share) for axis, share in ((1, config.hflip), (0, config.vflip)) if share > 0]
        self._recolor = None if config.color_jitter is None else transforms.color_jitter(config.color_jitter)
        self._normalized = transforms.normalisation(config)

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
            self._padded(geometry.resized(pixels, self._fitted(pixels), self._interpolation), image)
            labels[place] = np.where(mask == self._ignored, masks.IGNORED, mask.astype(np.int16))
        else:
            pixels, mask = self._augmented(pixels, mask, rng)
            self._padded(pixels, image)
            labels[place] = self._ignored
            labels[place][: mask.shape[0], : mask.shape[1]] = mask

    def _fitted(self, pixels: NDArray[Any], factor: float = 1.0) -> geometry.Size:
        return geometry.fitted((pixels.shape[0], pixels.shape[1]), self._size, factor)

    def _augmented(
        self, pixels: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """A box of a scaled image, uint8 (h, w, 3), perhaps mirrored and in other colours, and that of its mask."""
        size = self._fitted(pixels, rng.uniform(*self._factors))
        starts = [int(rng.integers(max(0, side - wanted) + 1)) for side, wanted in zip(size, self._size, strict=True)]
        rows, columns = (slice(start, start + side) for start, side in zip(starts, self._size, strict=True))
        pixels = geometry.resized(pixels, size, self._interpolation)[rows, columns]
        mask = geometry.nearest(mask, size, rows, columns)
        for axis, share in self._flips:
            if rng.random() < share:
                pixels, mask = np.flip(pixels, axis), np.flip(mask, axis)
        pixels = np.ascontiguousarray(pixels)
        return pixels if self._recolor is None else self._recolor(pixels, rng), mask

    def _padded(self, pixels: NDArray[Any], image: NDArray[Any]) -> None:
        """Write pixels, uint8 (h, w, 3), to the top left of `image`, normalised, and 0 beside them."""
        height, width = pixels.shape[:2]
        self._normalized(pixels, image[:, :height, :width])
        image[:, height:] = 0
        image[:, :height, width:] = 0
