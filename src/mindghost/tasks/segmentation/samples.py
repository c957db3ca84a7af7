"""Images with masks as the samples of a split: found, looked at before the first epoch, their classes settled."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...data import dataset, jpeg, splits, walk
from ...data.samples import FolderSamples, time_of_change
from ...data.scan import WHOLE, Part
from ...errors import UserError
from ...files import paths
from ...process.display import some
from ...runs.files import Color
from ..names import Classes
from . import classes as class_file
from . import layouts, lists, masks
from .layouts import Pairs

if TYPE_CHECKING:
    from .examples import MaskExamples

# Of classes that only the masks know: gaps between so many values are those of colours, not of classes.
_MANY = 32
_WHITE = 255

log = logging.getLogger("mindghost")


@dataclass(frozen=True, eq=False)
class MaskSamples(FolderSamples):
    """Image files with masks. `labels` say which classes a mask has: float32 (n, classes), 1 for each.

    Attributes:
        masks: what each mask is called below root, as `files` are.
        values: how many pixels of a mask have each of its values (`masks.encoded`), as bytes, (n,).
        ignored: value of pixels that do not count.
        source: list that names them; empty where they are those of folders.
        lines: which line of it names each of them, (n,).
        colors: of the classes; None where none are known.
    """

    masks: NDArray[Any] = field(kw_only=True)
    values: NDArray[Any] = field(kw_only=True)
    ignored: int = field(kw_only=True)
    source: str = field(default="", kw_only=True)
    lines: NDArray[Any] | None = field(default=None, kw_only=True)
    colors: list[Color] | None = field(default=None, kw_only=True)

    def examples(self, config: Config, training: bool) -> MaskExamples:
        """Returns what makes them what a network gets."""
        from .examples import MaskExamples

        return MaskExamples(config, self, training)

    @property
    def title(self) -> str:
        """The list, or the folder of all."""
        return self.source or self.root

    def where(self, index: int) -> str:
        """The line of the list."""
        return "" if self.lines is None else f"{self.source}:{self.lines[index]}"

    def mask_name(self, index: int) -> str:
        """The path of a mask."""
        return os.path.join(self.root, os.fsdecode(self.masks[index]))

    def mask(self, index: int) -> NDArray[Any]:
        """The classes in a mask, uint8 or int32 (height, width). Raises UserError where it has values that are none."""
        name, classes = self.mask_name(index), len(self.classes)
        found = masks.read(name)
        if ((found >= classes) & (found != self.ignored)).any():
            masks.check_values(masks.counted(found, name), classes, self.ignored, name)
        return found

    def pixels(self) -> NDArray[Any]:
        """How many pixels of each sample have each class, int64 (n, classes); ignored ones are left out."""
        counts = np.zeros((len(self), len(self.classes)), np.int64)
        for row, text in zip(counts, self.values, strict=True):
            for value, count in masks.decoded(text.decode()).items():
                if value != self.ignored:
                    row[value] = count
        return counts

    def size_and_time(self, index: int) -> tuple[int, int]:
        """The size of an image file, and a number for its time of change, and for size, time and name of its mask."""
        size, time = super().size_and_time(index)
        try:
            mask = os.stat(self.mask_name(index))
        except OSError:  # opening it says what is wrong with it
            return -1, 0
        facts = f"{time} {mask.st_size} {time_of_change(mask)}".encode() + self.masks[index]
        return size, int.from_bytes(hashlib.sha256(facts).digest()[:8], "big", signed=True)

    def check(self, index: int, decode: bool) -> bool:
        """Read an image, or its header, and the whole of its mask; see `look`."""
        return self.look(index, decode)[0]

    def look(self, index: int, decode: bool) -> tuple[bool, str]:
        """Whether an image file holds more images than one, and the values of its mask.

        Raises UserError where one of the two cannot be read, or they do not fit each other.
        """
        longer = super().check(index, decode)
        name, (width, height) = self.mask_name(index), self.size(index)
        mask = masks.read(name)
        masks.check_size(mask, (height, width), name, self.name(index))
        return longer, masks.encoded(masks.counted(mask, name))

    def _identity(self) -> NDArray[Any]:
        """The paths from the folder on that all share, and the values of the masks."""
        shared = os.path.commonpath([os.path.dirname(os.fsdecode(path)) or "." for path in (*self.files, *self.masks)])
        start = len(os.fsencode(shared)) if os.path.isabs(shared) else 0
        rows = zip(self.files, self.masks, self.values, strict=True)
        return np.array([b"\0".join((image[start:], mask[start:], values)) for image, mask, values in rows])


def open_split(config: Config, split: str, known: Sequence[str] | None = None, part: Part = WHOLE) -> MaskSamples:
    """The images and masks of a split, all of them looked at; see `Task.open_split`.

    Args:
        config: reads data_dir, train_split, val_split, train_list, val_list, val_fraction, class_names, num_classes,
            ignore_index, on_bad_image, image_digests.
        split: "train" or "val".
        known: names of the classes in their order, where a trained network has them.
        part: of several processes on one machine, this one's of the images to look into.

    Raises UserError where there is no such split, and, naming the file, for a mask that is missing, cannot be read,
    has another size than its image, colours, or values that are no classes.
    """
    found = pairs(config, split)
    files, mask_files = (np.array([os.fsencode(path) for path in side]) for side in (found.images, found.masks))
    samples = MaskSamples(
        (),
        np.zeros((len(files), 0), np.float32),
        str(found.root),
        files,
        jpeg.decoder(config.native_ops),
        scope=f"masks {os.path.realpath(found.source) if found.source else ''} {split}",
        masks=mask_files,
        values=np.full(len(files), b"", object),
        ignored=config.ignore_index,
        source=found.source,
        lines=np.array(found.lines) if found.lines else None,
        weights=np.array(found.weights, np.float32) if found.weights else None,
    )
    notes: dict[int, str] = {}
    kept = dataset.readable(config, samples, part, notes)
    if not len(kept):
        raise UserError(f"{samples.title}: no image with a mask can be read; mend or remove them")
    values = np.array([notes[index].encode() for index in kept.tolist()], object)
    return _with_classes(config, replace(samples.take(kept), values=values), known)


def _with_classes(config: Config, samples: MaskSamples, known: Sequence[str] | None) -> MaskSamples:
    """The samples with their classes settled, and every value of a mask compared with them."""
    found = [masks.decoded(text.decode()) for text in samples.values]
    named = None if known else _named(config)
    names = known or (named and named.names)
    if known is None and config.num_classes != 1 and len(names or ()) != 1:
        _check_binary(samples, found)
    count = len(names) if names is not None else config.num_classes or _counted(samples, found)
    _check_values(samples, found, count)
    rows = np.zeros((len(samples), count), np.float32)
    for row, values in zip(rows, found, strict=True):
        row[[value for value in values if value != samples.ignored]] = 1
    if not rows.any():
        raise UserError(
            f"{samples.title}: every pixel of all masks is ignore_index: {samples.ignored}; correct the key"
        )
    return replace(
        samples,
        classes=tuple(names or map(str, range(count))),
        labels=rows,
        numbered=names is None,
        colors=named.colors if named else None,
    )


def _named(config: Config) -> Classes | None:
    """The classes by the key `class_names`; None without it."""
    if not config.class_names:
        return None
    found = class_file.read(Path(config.class_names))
    if config.num_classes not in (None, len(found.names)):
        raise UserError(
            f"class_names: {config.class_names} has {len(found.names)} names, but num_classes is {config.num_classes}; "
            "leave num_classes out, or correct one of the two"
        )
    return found


def _counted(samples: MaskSamples, found: Sequence[Mapping[int, int]]) -> int:
    """How many classes there are, where only the masks know. Raises UserError for values as colours have them."""
    classes = sorted({value for values in found for value in values} - {samples.ignored})
    count = max(classes, default=0) + 1
    if count > _MANY and 2 * len(classes) < count:
        raise UserError(
            f"{samples.mask_name(0)}: this and all other masks have {len(classes)} values up to {count - 1} "
            f"({some(classes)}), as colours turned gray do; classes count from 0: change the masks, or give num_classes"
        )
    return count


def _check_binary(samples: MaskSamples, found: Sequence[Mapping[int, int]]) -> None:
    """Raise UserError where all masks are black and white, and white is ignored."""
    values = {value for one in found for value in one}
    if samples.ignored == _WHITE and _WHITE in values and values <= {0, _WHITE}:
        raise UserError(
            f"{samples.mask_name(0)}: this and all other masks have only pixels of 0 and 255, and 255 is ignore_index; "
            "classes count from 0: write 1 for 255"
        )


def _check_values(samples: MaskSamples, found: Sequence[Mapping[int, int]], count: int) -> None:
    """Raise UserError for the first mask with values that are no classes; it counts the others."""
    wrong = [i for i, values in enumerate(found) if any(v >= count and v != samples.ignored for v in values)]
    if wrong:
        more = f" ({len(wrong) - 1:,} more masks have such)" if len(wrong) > 1 else ""
        masks.check_values(found[wrong[0]], count, samples.ignored, samples.mask_name(wrong[0]), more)


# --- Which images and masks


def pairs(config: Config, split: str) -> Pairs:
    """The images and masks of a split by their names, none of them looked at. Raises UserError, as `open_split`."""
    if config.dataset != "imagenet":
        raise UserError(f"dataset: {config.dataset} has no masks; leave the key out for images with masks")
    skip = config.on_bad_image == "skip"
    data_dir, name = Path(config.data_dir), {"train": config.train_split, "val": config.val_split}[split]
    if (source := splits.source(config, split)).key:
        found = lists.pairs(source.place, source.key, data_dir, source.name, skip)
        return _part(config, found, split) if source.made else found
    own = layouts.split(data_dir, name)
    if config.val_fraction and layouts.split(data_dir, config.val_split) is None:
        own = layouts.split(data_dir, config.train_split) or layouts.whole(data_dir)
        return _part(config, layouts.complete(own or _refused(config, name), skip), split)
    return layouts.complete(own or _refused(config, name), skip)


def _part(config: Config, found: Pairs, split: str) -> Pairs:
    """The part of some pairs that is for training or validation, by the images' paths (`splits.is_validation`)."""
    files = np.array([os.fsencode(path) for path in found.images])
    chosen = splits.is_validation(files, np.zeros(len(files), np.int64), config.val_fraction)
    if chosen.all() or not chosen.any():
        raise UserError(
            f"val_fraction: {found.root} has {len(files):,} image(s), too few to be parted; give a validation split"
        )
    if split == "val":
        log.info(
            f"val_fraction {config.val_fraction:g}: {chosen.sum():,} of {len(files):,} images of {found.root} are for "
            "validation, by their paths"
        )
    kept = np.flatnonzero(chosen if split == "val" else ~chosen)

    def some_of(column: Sequence[Any]) -> list[Any]:
        return [column[index] for index in kept] if column else []

    return found._replace(
        images=some_of(found.images),
        masks=some_of(found.masks),
        lines=some_of(found.lines),
        weights=some_of(found.weights),
    )


def _refused(config: Config, name: str) -> Pairs:
    """Raise UserError for a split that is not there."""
    data_dir = Path(config.data_dir)
    parted = layouts.whole(data_dir) is not None
    hint = "; its images and masks have no splits: set val_fraction: 0.1" if parted and not config.val_fraction else ""
    paths.check_folder(data_dir, "correct data_dir")
    below = [data_dir / folder for folder in walk.class_folders(data_dir, walk.LeftOut())]
    if meant := [folder for folder in below if layouts.split(folder, name)]:
        hint = f"; give another data_dir, such as {meant[0]}"
    raise UserError(
        f"{data_dir}: no images with masks for the split {name!r}; expected {data_dir / name / 'images'}/*.jpg with "
        f"{data_dir / name / 'masks'}/*.png, the folders of VOC or Cityscapes, or a list (train_list){hint}"
    )
