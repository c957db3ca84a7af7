"""Files -> samples: what a split holds, in which order, under which label.

What is checked before the first epoch, whatever the layout, is here. Each layout is a module or a package beside this
one: `layouts` chooses among folders and what stands for them, lists of files are in `lists`, binary files in `binary`.
Which place a split is in `splits` says.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import paths
from ..process.display import some
from . import aliases, binary, class_names, excluded, fetch, folders, jpeg, labelled, layouts, lists, scan, splits, walk
from .imagenet import names as imagenet_names
from .lists.labels import Known
from .samples import ArraySamples, FileSamples, Samples
from .scan import WHOLE, Part
from .splits import Source

if TYPE_CHECKING:
    from ..config import Config

# Up to this many files every image is decoded before the first epoch (20,000 photos: about half a minute on 2
# cores); of larger sets only the headers are read, and a damaged body stops the run when its turn comes.
FULL_CHECK_LIMIT = 20_000

_BAD_LISTED = 100
_BINARY_USAGES = {"train": True, "val": False, "test": False}


_logger = logging.getLogger("mindghost")


def open_split(
    config: Config,
    split: str,
    classes: Sequence[str] | None = None,
    part: Part = WHOLE,
    several: bool = False,
) -> Samples:
    """Opens a split and checks what can be known before the first epoch: classes, labels, readable images.

    Args:
        config: reads dataset, data_dir, train_list, val_list, train_split, val_split, val_fraction, exclude_list,
            class_names, dataset_download, num_classes, on_bad_image, image_digests.
        split: "train" or "val": the role; see `splits.source`.
        classes: the names that define the labels (those of training). A name that the split lacks is fine,
            one that it has beyond them is an error. Absent: the split's own names, sorted.
        part: of several processes on one machine, this one's of the images to look into.
        several: an image may have several labels: they are float32 rows, (n, classes), 1 for each label of an image.
            Where a layout gives each image one, that is the only 1 of its row.

    Raises:
        UserError: no such split, an empty class, an unreadable image, unknown or too many classes; names the
            path.
    """
    place = place_of(config, split)
    samples = _open(config, split, classes, several)
    if split == "train" and config.exclude_list:
        samples = excluded.left_out(samples, Path(config.exclude_list), Path(config.data_dir))
    if several:
        samples = _as_rows(samples)
    if classes is None and (classes := _named(config)) is not None:
        place = f"{place}, by class_names: {config.class_names}"
    if classes is None and split == "val" and imagenet_names.are_some(samples.classes, config.num_classes):
        # Of a network with all of them and no names: some of ImageNet's folders are not the first of its outputs.
        classes = imagenet_names.synsets()
    if classes is not None:
        samples = _relabel(samples, classes, place)
    else:
        _say_empty(samples, place)
    _check_num_classes(samples, config.num_classes, place)
    if isinstance(samples, FileSamples):
        # A class whose few validation images are bad has others, to train on.
        drawn = split == "val" and config.dataset == "imagenet" and splits.source(config, split).made
        samples = _readable(config, samples, part, needs_all=not drawn)
    return samples


def place_of(config: Config, split: str) -> str:
    """What to call the place where the split "train" or "val" is opened, for people."""
    if config.dataset != "imagenet":
        return os.fspath(Path(config.data_dir) / _split_name(config, split))
    return str(splits.source(config, split))


def some_images(config: Config, split: str, count: int) -> list[NDArray[Any]]:
    """Up to `count` readable images of a split, evenly spaced over it; none where there is no such split.

    Unlike `open_split` it looks at no other image.
    """
    try:
        # Their labels do not matter: of a list, an image may have one or several.
        samples = _open(config, split, None, True)
    except UserError:
        return []
    found = []
    for index in np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int):
        with contextlib.suppress(UserError):
            found.append(samples.read(int(index)))
    return found


def _open(config: Config, split: str, classes: Sequence[str] | None = None, several: bool = False) -> Samples:
    if config.dataset != "imagenet":
        return _open_binary(config, split)
    if config.dataset_download:
        raise UserError("dataset_download: ImageNet can't be downloaded; get it from image-net.org and set data_dir")
    source = splits.source(config, split)
    if source.note:
        _logger.info(source.note)
    decoder = jpeg.decoder(config.native_ops)
    samples: Samples
    if source.key:
        known = Known(_named(config), classes, config.num_classes, several)
        role = "train_split" if split == "train" or source.made else "val_split"
        skip = config.on_bad_image == "skip"
        options = lists.Options(source.key, Path(config.data_dir), source.name, role, known, skip)
        samples = lists.open_list(source.place, options, decoder)
    else:
        samples = _open_images(config, source, decoder)
    return splits.part(samples, split, config, source.place) if source.made else samples


def _named(config: Config) -> Sequence[str] | None:
    """The names of the classes by the key `class_names`."""
    return class_names.read(Path(config.class_names), numbered=True) if config.class_names else None


def _split_name(config: Config, split: str) -> str:
    return {"train": config.train_split, "val": config.val_split}[split]


# --- Images


def _open_images(config: Config, source: Source, decoder: jpeg.Decoder | None) -> Samples:
    samples = layouts.opened(Path(config.data_dir), source.name, decoder)
    return _refuse_place(config, source) if samples is None else samples


def _refuse_place(config: Config, source: Source) -> NoReturn:
    """Raise UserError for a split that is not there, with what was perhaps meant."""
    root, data_dir = source.place, Path(config.data_dir)
    key = "train_split" if source.name == config.train_split else "val_split"
    keys = f"data_dir is {config.data_dir}, {key} is {source.name}"
    remedy = f"expected {root}/CLASS/*.jpg, or {root}-*.tar or .parquet; {keys}: name another one"
    if config.train_list and key == "val_split":
        remedy = f"train_list has no validation images: set val_list or val_fraction, or expected {root}/CLASS/*.jpg"
    elif likely := _likely(data_dir, source.name):
        remedy += likely
    elif folders.has_classes(data_dir):
        remedy += (
            f"; or, if the folders in {data_dir} are the classes, set val_fraction: 0.1, which keeps a part of the "
            "images for validation"
        )
    paths.check_folder(root, remedy)
    raise UserError(f"{root}: no images; {remedy}")


def _likely(data_dir: Path, split: str) -> str:
    """Which `data_dir` was meant, where a split is found one level above or below the one that was given."""
    if not split or not paths.is_folder(data_dir):
        return ""
    below = [data_dir / name for name in walk.class_folders(data_dir, walk.LeftOut())]
    found = [folder for folder in (data_dir.absolute().parent, *below) if paths.is_folder(folder / split)]
    return f", such as data_dir: {found[0]}" if len(found) == 1 else ""


def readable(
    config: Config, samples: FileSamples, part: Part = WHOLE, notes: dict[int, str] | None = None
) -> NDArray[Any]:
    """Indices of the samples that can be read, as `on_bad_image` has it; what is left out is logged.

    `notes` gets what is to be remembered of good ones, whichever process has looked at them (`FileSamples.look`).

    Raises UserError for the first one that cannot be read, unless such ones are to be skipped.
    """
    skip = config.on_bad_image == "skip"
    decode = skip or len(samples) <= FULL_CHECK_LIMIT
    own: dict[int, str] = {}
    bad = scan.bad_images(samples, decode, not skip, part, config.image_digests, own)
    if skip:
        bad = part.merged(bad)

    def told(index: int) -> str:
        where = samples.where(index)
        return f"{where}: {bad[index]}" if where else bad[index]

    if bad and not skip:
        raise UserError(f"{told(min(bad))}, or set on_bad_image: skip")
    for index in sorted(bad)[:_BAD_LISTED]:
        _logger.warning(f"left out: {told(index)}")
    if bad:
        _logger.warning(f"{samples.title}: {len(bad)} of {len(samples):,} images left out (on_bad_image: skip)")
    if notes is not None:
        notes |= part.merged(own)
    return np.flatnonzero(~np.isin(np.arange(len(samples)), list(bad)))


def _readable(config: Config, samples: FileSamples, part: Part, needs_all: bool) -> FileSamples:
    """The samples that can be read (see `readable`).

    Where some are left out, each class keeps one, if it `needs_all`; else one of all is enough.
    """
    good = readable(config, samples, part)
    if len(good) == len(samples):
        return samples
    kept = samples.take(good)
    gone = _present(samples) - _present(kept)
    if gone and (needs_all or not len(kept)):
        name = samples.classes[min(gone)]
        if samples.title == samples.root:
            raise UserError(f"{samples.root}/{name}: no image in this class folder can be read; mend or remove it")
        raise UserError(f"{samples.title}: no image of the class {name} can be read; mend or remove them")
    return kept


# --- Binary forms


def _open_binary(config: Config, split: str) -> ArraySamples:
    usage = _split_name(config, split)
    if usage not in _BINARY_USAGES:
        raise UserError(f"{split}_split: {usage!r} is no part of {config.dataset}; expected train, val or test")
    data_dir = Path(config.data_dir)
    if config.dataset_download:
        fetch.fetch_dataset(config.dataset, data_dir)
    paths.check_folder(data_dir, "correct data_dir or set dataset_download: True")
    train = _BINARY_USAGES[usage]
    if config.dataset == "mnist":
        arrays = binary.read_mnist(data_dir, train)
    else:
        arrays = binary.read_cifar(config.dataset, data_dir, train)
    return ArraySamples(arrays.classes, arrays.labels, f"{config.dataset} {usage}", arrays.images)


# --- Classes


def _relabel(samples: Samples, classes: Sequence[str], place: str) -> Samples:
    """The samples with labels that index `classes`, mapped by name."""
    samples = aliases.called_as(samples, classes, place)
    label_of = {name: label for label, name in enumerate(classes)}
    # A layout may know more classes than it has images of.
    present = _present(samples)
    unknown = [name for label, name in enumerate(samples.classes) if name not in label_of and label in present]
    if unknown:
        raise UserError(
            f"{place}: {len(unknown)} class(es) that the {len(classes)} known ones lack: {some(unknown)}; "
            f"class folders must have the names they had in training{labelled.look_alike(unknown, classes)}"
        )
    found = {samples.classes[label] for label in present}
    absent = [name for name in classes if name not in found]
    if absent:
        _logger.info("%s: no image of %d of the %d classes: %s", place, len(absent), len(classes), some(absent))
    mapping = np.array([label_of.get(name, -1) for name in samples.classes], np.int32)
    if samples.labels.ndim == 1:
        return replace(samples, classes=tuple(classes), labels=mapping[samples.labels])
    labels = np.zeros((len(samples), len(classes)), np.float32)
    labels[:, mapping[mapping >= 0]] = samples.labels[:, mapping >= 0]
    return replace(samples, classes=tuple(classes), labels=labels)


def _say_empty(samples: Samples, place: str) -> None:
    """Log which classes have no image, in layouts that know of such."""
    absent = sorted(set(range(len(samples.classes))) - _present(samples))
    if absent:
        names, count = some([samples.classes[label] for label in absent]), len(samples.classes)
        _logger.info("%s: no image of %d of the %d classes: %s", place, len(absent), count, names)


def _as_rows(samples: Samples) -> Samples:
    """The samples with a row for the labels of each image, float32 (n, classes)."""
    if samples.labels.ndim == 2:
        return samples
    rows = np.zeros((len(samples), len(samples.classes)), np.float32)
    rows[np.arange(len(samples)), samples.labels] = 1
    return replace(samples, labels=rows)


def _present(samples: Samples) -> set[int]:
    """The labels that at least one image has."""
    found = samples.labels if samples.labels.ndim == 1 else np.flatnonzero(samples.labels.any(axis=0))
    return set(map(int, np.unique(found)))


def _check_num_classes(samples: Samples, num_classes: int | None, place: str) -> None:
    found = len(samples.classes)
    if num_classes is not None and found > num_classes:
        raise UserError(f"{place}: {found} classes, but num_classes is {num_classes}; set num_classes: {found}")
