"""Files -> samples: what a split holds, in which order, under which label.

Image folders are `data_dir/<split>/CLASS/**`: a class is a direct subfolder, labels follow the sorted
names, images lie in it or below it (see `walk`). A split may also be a pack of such a folder (`packs`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import paths
from ..process.display import some
from . import binary, fetch, jpeg, scan, walk
from . import pack as packs
from .samples import ArraySamples, FolderSamples, Samples
from .scan import WHOLE, Part

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
) -> Samples:
    """Opens a split and checks what can be known before the first epoch: classes, labels, readable images.

    Args:
        config: reads dataset, data_dir, train_split, val_split, dataset_download, num_classes, on_bad_image,
            image_digests.
        split: "train" or "val": the role; its folder (or usage name) is config.train_split or
            config.val_split.
        classes: the names that define the labels (those of training). A name that the split lacks is fine,
            one that it has beyond them is an error. Absent: the split's own names, sorted.
        part: of several processes on one machine, this one's of the images to look into.

    Raises:
        UserError: no such split, an empty class, an unreadable image, unknown or too many classes; names the
            path.
    """
    samples = _open(config, split)
    place = _place(config, split)
    if classes is not None:
        samples = _relabel(samples, classes, place)
    _check_num_classes(samples, config.num_classes, place)
    if isinstance(samples, FolderSamples):
        samples = _readable(config, samples, part)
    return samples


def some_images(config: Config, split: str, count: int) -> list[NDArray[Any]]:
    """Up to `count` readable images of a split, evenly spaced over it; none where there is no such split.

    Unlike `open_split` it looks at no other image.
    """
    try:
        samples = _open(config, split)
    except UserError:
        return []
    found = []
    for index in np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int):
        with contextlib.suppress(UserError):
            found.append(samples.read(int(index)))
    return found


def _open(config: Config, split: str) -> Samples:
    return (_open_images if config.dataset == "imagenet" else _open_binary)(config, split)


def _place(config: Config, split: str) -> Path:
    return Path(config.data_dir) / _split_name(config, split)


def _split_name(config: Config, split: str) -> str:
    return {"train": config.train_split, "val": config.val_split}[split]


# --- Images


def _open_images(config: Config, split: str) -> Samples:
    if config.dataset_download:
        raise UserError("dataset_download: ImageNet can't be downloaded; get it from image-net.org and set data_dir")
    root = _place(config, split)
    if not paths.is_folder(root):
        keys = f"data_dir is {config.data_dir}, {split}_split is {_split_name(config, split)}"
        remedy = f"expected {root}/CLASS/*.jpg; {keys}: name another one"
        paths.check_folder(root, f"{remedy}{_likely(Path(config.data_dir), _split_name(config, split))}")
    decoder = jpeg.decoder(config.native_ops)
    return packs.open_pack(root, decoder) if packs.is_pack(root) else open_folders(root, decoder)


def _likely(data_dir: Path, split: str) -> str:
    """Which `data_dir` was meant, where a split is found one level above or below the one that was given."""
    if not split or not paths.is_folder(data_dir):
        return ""
    below = [data_dir / name for name in walk.class_folders(data_dir, walk.LeftOut())]
    found = [folder for folder in (data_dir.absolute().parent, *below) if paths.is_folder(folder / split)]
    return f", such as data_dir: {found[0]}" if len(found) == 1 else ""


def open_folders(root: Path, decoder: jpeg.Decoder | None = None) -> FolderSamples:
    """The image files below the class folders of a folder, by their names: none is opened.

    Raises UserError where there is no class folder, one without images, or only one that is no class but a split.
    """
    left_out = walk.LeftOut()
    folders = walk.class_folders(root, left_out)
    if not folders:
        raise UserError(f"{root}: no class folder in it; expected {root}/CLASS/*.jpg")
    files: list[bytes] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = [os.path.relpath(file, root) for file in walk.image_files(root / folder, left_out)]
        if not found:
            left_out.say(root)
            raise UserError(f"{root / folder}: no image in this class folder; add some or remove the folder")
        if len(folders) == 1:
            _check_depth(root, found)
        files += map(os.fsencode, found)
        labels += [label] * len(found)
    left_out.say(root)
    _say_twins(root, folders)
    return FolderSamples(tuple(folders), np.array(labels, np.int32), str(root), np.array(files), decoder)


def _say_twins(root: Path, folders: Sequence[str]) -> None:
    """Warn of two classes whose names look the same, as when a disk of macOS and one of Linux were put together."""
    seen: dict[str, str] = {}
    for name in folders:
        if (first := seen.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            _logger.warning(
                f"{root}: two classes look the same, {first} and {name}: one is written in other Unicode characters "
                "(NFC against NFD); put their images into one folder if they are one class"
            )


def _check_depth(root: Path, files: Sequence[str]) -> None:
    """Raise UserError where no image lies in the only class folder itself: it is a split, and the classes are below."""
    folders = {os.path.dirname(file) for file in files}
    if any(os.sep not in folder for folder in folders):
        return
    common = os.path.commonpath(folders)
    meant = root / (os.path.dirname(common) if common in folders else common)
    raise UserError(
        f"{root}: its only folder, {common.partition(os.sep)[0]}, has no image in it, all are in folders below: if "
        f"they are classes, the split is {meant}: set data_dir, train_split and val_split so; else move the images up"
    )


def _readable(config: Config, samples: FolderSamples, part: Part) -> FolderSamples:
    """The samples that can be read, as `on_bad_image` has it. Raises UserError for the first one that cannot."""
    skip = config.on_bad_image == "skip"
    decode = skip or len(samples) <= FULL_CHECK_LIMIT
    bad = scan.bad_images(samples, decode, not skip, part, config.image_digests)
    if skip:
        bad = part.merged(bad)
    if not bad:
        return samples
    if not skip:
        raise UserError(f"{bad[min(bad)]}, or set on_bad_image: skip")
    for index in sorted(bad)[:_BAD_LISTED]:
        _logger.warning(f"left out: {bad[index]}")
    _logger.warning(f"{samples.root}: {len(bad)} of {len(samples):,} images left out (on_bad_image: skip)")
    keep = ~np.isin(np.arange(len(samples)), list(bad))
    kept = replace(samples, labels=samples.labels[keep], files=samples.files[keep])
    if gone := set(samples.labels) - set(kept.labels):
        raise UserError(
            f"{samples.root}/{samples.classes[min(gone)]}: no image in this class folder can be read; mend or remove it"
        )
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


def _relabel(samples: Samples, classes: Sequence[str], place: Path) -> Samples:
    """The samples with labels that index `classes`, mapped by name."""
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in samples.classes if name not in label_of]
    if unknown:
        raise UserError(
            f"{place}: {len(unknown)} class(es) that the {len(classes)} known ones lack: {some(unknown)}; "
            f"class folders must have the names they had in training{_look_alike(unknown, classes)}"
        )
    absent = [name for name in classes if name not in set(samples.classes)]
    if absent:
        _logger.info("%s: no image of %d of the %d classes: %s", place, len(absent), len(classes), some(absent))
    mapping = np.array([label_of[name] for name in samples.classes], np.int32)
    return replace(samples, classes=tuple(classes), labels=mapping[samples.labels])


def _look_alike(unknown: Sequence[str], classes: Sequence[str]) -> str:
    """A remark, where a name is a known one written in other Unicode characters (`é` as one, or as two)."""
    known = {unicodedata.normalize("NFC", name): name for name in classes}
    for name in unknown:
        if (other := known.get(unicodedata.normalize("NFC", name))) is not None:
            form = "NFC" if unicodedata.is_normalized("NFC", name) else "NFD"
            return (
                f"; {name} looks like the known {other}, but is written in other Unicode characters ({form}): rename "
                "the folder to what it was"
            )
    return ""


def _check_num_classes(samples: Samples, num_classes: int | None, place: Path) -> None:
    found = len(samples.classes)
    if num_classes is not None and found > num_classes:
        raise UserError(f"{place}: {found} classes, but num_classes is {num_classes}; set num_classes: {found}")
