"""Samples as a network gets them: pixels that are transformed, and labels beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import transforms

if TYPE_CHECKING:
    from ..config import Config
    from .samples import Samples

# Of a batch: an array with an entry for each sample, or a list where the entries differ in shape.
Labels = NDArray[Any] | list[Any]


class Examples:
    """What batches are made of, where labels have nothing to do with pixels: a number or a row for each sample.

    Samples whose labels change with their images, as masks do, have others (`Samples.examples`).

    Args:
        config: says how images are transformed.
        samples: of the split.
        training: whether they are augmented.

    Attributes:
        shape: of an image that the network gets, (in_channels, height, width).
        label_size: values of a label in training, where they are as many as pixels.
    """

    label_size = 0

    def __init__(self, config: Config, samples: Samples, training: bool) -> None:
        self.shape = (config.in_channels, *transforms.input_size(config))
        self._samples = samples
        native = getattr(samples, "decoder", None)  # arrays in memory have none
        make = transforms.train_transform if training else transforms.eval_transform
        self._transform = make(config, native)

    def labels(self, indices: NDArray[Any]) -> Labels:
        """The labels of some samples, as far as they are known without their pixels."""
        return self._samples.labels[indices]

    def fill(
        self, index: int, image: NDArray[Any], labels: Labels, place: int, rng: np.random.Generator | None = None
    ) -> None:
        """Write a sample to `image`, and to `labels[place]` what is not known without its pixels.

        Args:
            index: of the sample.
            image: a part of a batch, float32 (see `shape`).
            labels: of the batch.
            place: of the sample in it.
            rng: draws the augmentation; None in evaluation.

        Raises UserError for an image that can't be read.
        """
        # Of a JPEG file, no more is decoded than a crop needs.
        pixels = transforms.as_rgb(self._samples.open(index), self.shape[0])
        if rng is None:
            self._transform(pixels, image)
        else:
            self._transform(pixels, rng, image)
