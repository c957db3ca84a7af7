"""Settings that make little sense with the classes of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...config import Config
from ...data.samples import Samples

# Fewer classes of one character may be the numbers of classes.
_DIGITS = 10
# Folders that are no classes.
_SCENES = {"images", "masks"}


def are_signs(classes: Sequence[str]) -> bool:
    """Whether classes are digits or letters by their names, whose mirror images are others or none."""
    return len(classes) >= _DIGITS and all(len(name) == 1 for name in classes)


def doubts(config: Config, samples: Samples) -> Iterator[str]:
    """A line for each of them. `config` has its number of classes; `samples` are to be trained on."""
    if len(samples.classes) == 1 and config.num_classes == 1:
        yield f"one class ({samples.classes[0]}): every answer is right, and there is nothing to learn"
    if set(samples.classes) == _SCENES:
        yield "the classes are images and masks: if these are images with masks, give --task segmentation"
    if config.sampler == "balanced":
        yield _drawn(config, samples)
    flips = [key for key in ("hflip", "vflip") if getattr(config, key) > 0 and config.dataset != "mnist"]
    if flips and are_signs(samples.classes):
        values = " and ".join(f"{key} {getattr(config, key):g}" for key in flips)
        yield f"classes are single characters ({', '.join(samples.classes[:3])}, ...): {values} mirrors them; set 0"


def _drawn(config: Config, samples: Samples) -> str:
    """What a balanced draw does to the smallest class."""
    labels, sizes = np.unique(samples.labels, return_counts=True)
    share = min(len(samples), config.num_samples or len(samples)) / len(labels)
    smallest = int(sizes.argmin())
    return (
        f"sampler balanced: of {len(labels)} classes, each has some {share:,.0f} images an epoch; the "
        f"{sizes[smallest]:,} of {samples.classes[labels[smallest]]} come {share / sizes[smallest]:.1f} times"
    )
