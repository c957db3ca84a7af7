"""The images on which ranges of activations are measured."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import tasks
from ...config import Config
from ...data import dataset, images, transforms
from ...data import pack as packs
from ...data.samples import Samples
from ...errors import UserError
from ...files import paths

log = logging.getLogger("mindghost")

_SEED = 0  # of their choice


def calibration_images(config: Config, folder: Path, count: int, classes: Sequence[str] | None) -> NDArray[Any]:
    """Images as the network gets them, float32 (N, C, H, W), N up to `count`, chosen by a fixed seed.

    They are spread over the folders in `folder`, which are the classes where it is a training split, or over the
    classes of a pack or a data set in binary form; a log line says over how many. `classes` is None where the network
    knows no names.

    Raises UserError where there is none, or one cannot be read.
    """
    task = tasks.of(config)
    paths.check_folder(folder, "give one with images, such as the training split", "--calib_dir")
    if packs.is_pack(folder):
        samples: Samples = packs.open_pack(folder)
        groups, read = _by_label(samples.labels), samples.read
    elif found := task.image_groups(folder):
        files = list(itertools.chain(*found))
        places = iter(range(len(files)))
        groups = [list(itertools.islice(places, len(group))) for group in found]
        read = lambda index: images.read_image(files[index])  # noqa: E731
    elif config.dataset != "imagenet":
        samples = dataset.open_split(config.replace(data_dir=str(folder)), "train", classes)
        groups, read = _by_label(samples.labels), samples.read
    else:
        raise UserError(f"--calib_dir: {folder}: no image in it or below it; give a folder with .jpg or other images")
    chosen = _spread(groups, count)
    seen = sum(bool(set(group) & set(chosen)) for group in groups)
    log.info(f"calibration: {len(chosen)} images of {folder}, from {seen} of its {len(groups)} folder(s) or classes")
    outputs = config.num_classes if classes is None else len(classes)
    if outputs is not None and len(groups) < outputs and not task.is_dense:
        log.warning(
            f"--calib_dir: {folder} has images in {len(groups)} folder(s), and the network {outputs} classes: "
            "ranges measured on images of all classes lose less"
        )
    transform = task.eval_transform(config)
    inputs = [transform(transforms.as_rgb(read(index), config.in_channels)) for index in chosen]
    return np.stack(inputs).astype(np.float32)


def _by_label(labels: NDArray[Any]) -> list[list[int]]:
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]


def _spread(groups: list[list[int]], count: int) -> list[int]:
    """Up to `count` members, as many of each group as of every other, as far as it has them: drawn by a fixed seed."""
    generator = np.random.default_rng(_SEED)
    shuffled = [generator.permutation(group).tolist() for group in groups]
    order = generator.permutation(len(groups))
    rounds = range(max(map(len, groups)))
    turns = (shuffled[group][turn] for turn in rounds for group in order if turn < len(shuffled[group]))
    return list(itertools.islice(turns, count))
