"""The images that an exported file is compared on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..data import transforms
from ..inference.deployment import Deployment

# Images that a file is compared on. MindSpore writes ONNX for this batch; no size of a network equals it.
IMAGES = 7


def comparison_images(deployed: Deployment) -> tuple[NDArray[Any], int]:
    """Images as the network gets them, (7, C, H, W) float32, and how many of them, the first ones, are the run's own.

    Those of its validation, or else of its training; behind them, made-up pictures with the spectrum of natural ones.
    """
    config, task = deployed.config, tasks.of(deployed.config)
    found = task.some_images(config, "val", IMAGES) or task.some_images(config, "train", IMAGES)
    made_up = [picture(seed) for seed in range(IMAGES - len(found))]
    transform = task.eval_transform(config)
    images = [transform(transforms.as_rgb(pixels, config.in_channels)) for pixels in (*found, *made_up)]
    return np.stack(images).astype(np.float32), len(found)


def picture(seed: int, height: int = 240, width: int = 320) -> NDArray[Any]:
    """Coloured clouds, uint8 (height, width, 3): amplitudes fall with the frequency, as in photos."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / np.maximum(frequency, 1)
    clouds = np.fft.irfft2(spectrum, (height, width))
    # Most of a photo's contrast is that of its brightness.
    clouds = 0.8 * clouds[:1] + 0.2 * clouds
    clouds = 128 + 50 * (clouds - clouds.mean()) / clouds.std()
    return np.clip(clouds, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
