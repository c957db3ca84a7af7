"""What a configuration means by its two splits: lists, folders, or parts of one set that `val_fraction` makes.

Whether an image is for validation is a function of its path alone: its side never changes when others are added.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from . import folders, places
from .lists import rows as list_rows
from .samples import FileSamples, Samples

if TYPE_CHECKING:
    from ..config import Config

_logger = logging.getLogger("mindghost")


class Source(NamedTuple):
    """Where a split is opened.

    Attributes:
        place: the list, the folder, or what shards of that name stand for.
        key: the key that named a list; empty for other layouts.
        name: of the split, below `data_dir` or in the list's column.
        made: `val_fraction` makes it: a part of what is there.
        note: what to say where it is opened.
    """

    place: Path
    key: str
    name: str
    made: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{self.place}{' (a part of it, by val_fraction)' if self.made else ''}"


def source(config: Config, split: str) -> Source:
    """Where the split "train" or "val" is opened. A list goes before a folder, any validation split before a made one.

    Raises UserError for a list that cannot be read.
    """
    data_dir = Path(config.data_dir)
    own = "" if config.val_fraction == 0 else _own_validation(config)
    made = config.val_fraction > 0 and not own
    if split == "train" or made:
        key = "train_list" if config.train_list else ""
        place = Path(config.train_list) if key else places.folder(data_dir, config.train_split)
        if made and not key and not places.is_there(data_dir, config.train_split):
            return Source(data_dir, "", "", made)
        return Source(place, key, config.train_split, made)
    note = f"val_fraction is not used: the validation images are those of {own}" if own else ""
    if config.val_list:
        return Source(Path(config.val_list), "val_list", config.val_split, note=note)
    if config.train_list and list_rows.has_splits(Path(config.train_list), "train_list"):
        return Source(Path(config.train_list), "train_list", config.val_split, note=note)
    return Source(places.folder(data_dir, config.val_split), "", config.val_split, note=note)


def lacks_validation(config: Config) -> bool:
    """Whether there are images to train on, and none for validation, so that `val_fraction` could make some."""
    if config.dataset != "imagenet" or _own_validation(config):
        return False
    data_dir = Path(config.data_dir)
    return bool(config.train_list) or places.is_there(data_dir, config.train_split) or folders.has_classes(data_dir)


def part(samples: Samples, split: str, config: Config, place: object) -> Samples:
    """The part of a set that is for training or validation (see `is_validation`). Raises UserError where one is empty.

    Says how many images are for validation, once: where those are opened.
    """
    if not isinstance(samples, FileSamples) and not hasattr(samples, "files"):
        raise UserError(f"val_fraction: the images of {place} have no paths; give a validation split")
    files: NDArray[Any] = samples.files
    labels = samples.labels if samples.labels.ndim == 1 else samples.labels.argmax(axis=1)
    chosen = is_validation(files, labels, config.val_fraction)
    if not chosen.any() or chosen.all():
        raise UserError(
            f"val_fraction: {place} has {len(files):,} image(s) in {len(samples.classes)} class(es), too few to be "
            "parted; give a validation split"
        )
    if split == "val":
        share = 100 * chosen.mean()
        _logger.info(
            f"val_fraction {config.val_fraction:g}: {chosen.sum():,} of {len(files):,} images of {place} "
            f"({share:.1f} %) are for validation, by their paths"
        )
    taken = samples.take(np.flatnonzero(chosen if split == "val" else ~chosen))
    return replace(taken, scope=f"{taken.scope} {split}") if isinstance(taken, FileSamples) else taken


def is_validation(files: NDArray[Any], labels: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Which images are for validation, bool (n,).

    Those whose number is below `fraction`: the first 8 bytes of the sha256 of a path, as a share of all that there
    could be. Where that leaves all images of a class (of two and more) on one side, the one whose number is nearest to
    the other side goes there: the lowest to validation, the highest to training. Only such an image can ever change
    its side: when a later one of its class is on that side by itself, or when its class loses the last one there.

    Args:
        files: paths below the set's folder as bytes, (n,).
        labels: int, (n,).
        fraction: over 0 and below 1.
    """
    numbers = np.fromiter(map(_number, files), np.float64, len(files))
    chosen = numbers < fraction
    order = np.lexsort((numbers, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        if end - start > 1:
            chosen[order[start]] = True
            chosen[order[end - 1]] = False
    return chosen


def _number(file: bytes) -> float:
    return int.from_bytes(hashlib.sha256(file).digest()[:8], "big") / 2.0**64


def _own_validation(config: Config) -> str:
    """What has validation images already, so that none need be made; empty where nothing does."""
    if config.val_list:
        return f"val_list: {config.val_list}"
    if config.train_list and list_rows.has_splits(Path(config.train_list), "train_list"):
        return f"train_list, which has a column for the split: {config.train_list}"
    there = config.val_split != config.train_split and places.is_there(Path(config.data_dir), config.val_split)
    return str(places.folder(Path(config.data_dir), config.val_split)) if there else ""
