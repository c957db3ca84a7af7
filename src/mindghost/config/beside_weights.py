"""What is taken of the `config.yaml` beside weights. It came with them, and may be anybody's.

Network, layout of the data, preprocessing and the way of evaluation are taken, within bounds; sizes are compared with
those of the weights before a network is built (`build.trained_network`). No key is among them that chooses a device,
fetches, writes, deletes or compiles anything: those are the command's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .problems import Problem

if TYPE_CHECKING:
    from . import Config

KEYS = frozenset(
    {
        # the network
        "model",
        "num_classes",
        "in_channels",
        "drop_rate",
        "drop_path_rate",
        "backbone",
        "decoder_width",
        "channels",
        "quantize_aware",
        "upsampling",
        "ema",
        # the layout of the data, and what its labels mean
        "dataset",
        "task",
        "data_dir",
        "train_split",
        "val_split",
        "train_list",
        "val_list",
        "val_fraction",
        "class_names",
        "ignore_index",
        "on_bad_image",
        # preprocessing
        "image_resize",
        "crop_pct",
        "interpolation",
        "mean",
        "std",
        # evaluation
        "batch_size",
        "eval_mirror",
        "val_amp_level",
        "amp_cast_list",
    }
)

# No network and no data set for one comes near.
MAX_CLASSES, MAX_CHANNELS = 1_000_000, 1_024
MAX_SIDE, MAX_COVERED = 4_096, 16_384  # pixels: of the network's input, and of the image that it is cut from
MAX_VALUES = 2**29  # of a batch: 2 GB


def fitting(values: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Values of these keys, without those that what is `given` takes the place of.

    Who names another folder does not mean the lists of the first one; who names another validation split does not mean
    the list that took the place of the folder.
    """
    replaced = set()
    if "data_dir" in given:
        replaced |= {"train_list", "val_list"}
    if "val_split" in given and values.get("val_list") != values.get("train_list"):
        replaced.add("val_list")
    return {key: value for key, value in values.items() if key not in replaced}


def oversized(config: Config) -> Iterator[Problem]:
    """Sizes that a file of unknown origin does not get."""
    size = config.image_resize
    height, width = size if isinstance(size, tuple) else (size, size)
    side, covered = max(height, width), max(height, width) / config.crop_pct
    if (config.num_classes or 0) > MAX_CLASSES:
        yield _problem("num_classes", f"at most {MAX_CLASSES:,}", config.num_classes)
    if config.in_channels > MAX_CHANNELS:
        yield _problem("in_channels", f"at most {MAX_CHANNELS:,}", config.in_channels)
    if side > MAX_SIDE:
        yield _problem("image_resize", f"at most {MAX_SIDE:,} pixels", side)
    elif covered > MAX_COVERED:
        yield _problem(
            "crop_pct", f"a share that images of {MAX_COVERED:,} pixels are large enough for", config.crop_pct
        )
    elif config.batch_size * config.in_channels * height * width > MAX_VALUES:
        most = MAX_VALUES // (config.in_channels * height * width)
        yield _problem("batch_size", f"at most {most:,} for these images", config.batch_size)


def _problem(key: str, most: str, got: object) -> Problem:
    return Problem((key,), f"expected {most}, got {got}")
