"""Files -> samples: what a split holds, in which order, under which label.

Image folders are ``data_dir/<split>/CLASS/**``: a class is a direct subfolder, labels follow the sorted
names, images lie in it or below it. Hidden entries and files that are no images by name are ignored; only
regular files are opened. A split may also be a pack of such a folder (`packs`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ghostnet import download
from ghostnet.data import binary, images, jpeg, packs, scan
from ghostnet.data.samples import ArraySamples, FolderSamples, Samples
from ghostnet.errors import UserError

if TYPE_CHECKING:
    from ghostnet.config import Config

# Up to this many files every image is decoded before the first epoch (20,000 photos: about half a minute on 2
# cores); of larger sets only the headers are read, and a damaged body stops the run when its turn comes.
FULL_CHECK_LIMIT = 20_000

_NAMES_SHOWN = 5
_BAD_LISTED = 100
_BINARY_USAGES = {"train": True, "val": False, "test": False}

Share = Callable[[dict[int, str]], dict[int, str]]

_logger = logging.getLogger("ghostnet")


def open_split(
    config: Config,
    split: str,
    classes: Sequence[str] | None = None,
    part: int = 0,
    parts: int = 1,
    share: Share = lambda bad: bad,
) -> Samples:
    """Opens a split and checks what can be known before the first epoch: classes, labels, readable images.

    Args:
        config: reads dataset, data_dir, train_split, val_split, dataset_download, num_classes, on_bad_image,
            image_digests.
        split: "train" or "val": the role; its folder (or usage name) is config.train_split or
            config.val_split.
        classes: the names that define the labels (those of training). A name that the split lacks is fine,
            one that it has beyond them is an error. Absent: the split's own names, sorted.
        part, parts: of several processes on one machine, each looks into its part of the images.
        share: with `on_bad_image: skip`, gives every process the bad images (index -> why) that any of them found.

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
        samples = _readable(config, samples, part, parts, share)
    return samples


def some_images(config: Config, split: str, count: int) -> list[np.ndarray]:
    """Up to ``count`` readable images of a split, evenly spaced over it; none where there is no such split.

    Unlike :func:`open_split` it looks at no other image.
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
    if not root.is_dir():
        keys = f"data_dir is {config.data_dir}, {split}_split is {_split_name(config, split)}"
        raise UserError(f"{root}: no such folder; expected {root}/CLASS/*.jpg; {keys}: name another one")
    decoder = jpeg.decoder(config.native_ops)
    return packs.open_pack(root, decoder) if packs.is_pack(root) else open_folders(root, decoder)


def open_folders(root: Path, decoder: jpeg.Decoder | None = None) -> FolderSamples:
    """The image files below the class folders of a folder, by their names: none is opened.

    Raises UserError where there is no class folder, or one without images.
    """
    folders = [entry.name for entry in _entries(root) if _holds(entry.is_dir)]
    if not folders:
        raise UserError(f"{root}: no class folder in it; expected {root}/CLASS/*.jpg")
    files: list[bytes] = []
    labels: list[int] = []
    skipped: list[str] = []
    resolved = root.resolve()
    above = tuple((s.st_dev, s.st_ino) for s in (folder.stat() for folder in (resolved, *resolved.parents)))
    for label, folder in enumerate(folders):
        found = [os.fsencode(os.path.relpath(file, root)) for file in _image_files(root / folder, above, skipped)]
        if not found:
            raise UserError(f"{root / folder}: no image in this class folder; add some or remove the folder")
        files += found
        labels += [label] * len(found)
    if skipped:
        _logger.warning("%d entries that are no regular files are ignored, such as %s", len(skipped), skipped[0])
    return FolderSamples(tuple(folders), np.array(labels, np.int32), str(root), np.array(files), decoder)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error


def _image_files(folder: Path, ancestors: tuple[tuple[int, int], ...], skipped: list[str]) -> Iterator[str]:
    """Paths of the regular image files in a folder and below it; links that lead back up are not followed."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in ancestors:
        skipped.append(str(folder))
        return
    for entry in _entries(folder):
        if _holds(entry.is_dir):
            yield from _image_files(folder / entry.name, (*ancestors, here), skipped)
        elif os.path.splitext(entry.name)[1].lower() in images.EXTENSIONS:
            if _holds(entry.is_file):
                yield entry.path
            else:
                skipped.append(entry.path)


def _holds(check: Callable[[], bool]) -> bool:
    """False where an entry's kind can't be found out, as for a link to itself."""
    try:
        return check()
    except OSError:
        return False


def _readable(config: Config, samples: FolderSamples, part: int, parts: int, share: Share) -> FolderSamples:
    """The samples that can be read, as `on_bad_image` has it. Raises UserError for the first one that cannot."""
    skip = config.on_bad_image == "skip"
    decode = skip or len(samples) <= FULL_CHECK_LIMIT
    bad = scan.bad_images(samples, decode, not skip, part, parts, config.image_digests)
    if skip:
        bad = share(bad)
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
        download.fetch_dataset(config.dataset, data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; correct data_dir or set dataset_download: True")
    train = _BINARY_USAGES[usage]
    if config.dataset == "mnist":
        arrays = binary.read_mnist(data_dir, train)
    else:
        arrays = binary.read_cifar(config.dataset, data_dir, train)
    return ArraySamples(arrays.classes, arrays.labels, f"{config.dataset} {usage}", arrays.images)


# --- Classes


def _relabel(samples: Samples, classes: Sequence[str], place: Path) -> Samples:
    """The samples with labels that index ``classes``, mapped by name."""
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in samples.classes if name not in label_of]
    if unknown:
        raise UserError(
            f"{place}: {len(unknown)} class(es) that the {len(classes)} known ones lack: {_listed(unknown)}; "
            "class folders must have the names they had in training"
        )
    absent = [name for name in classes if name not in set(samples.classes)]
    if absent:
        _logger.info("%s: no image of %d of the %d classes: %s", place, len(absent), len(classes), _listed(absent))
    mapping = np.array([label_of[name] for name in samples.classes], np.int32)
    return replace(samples, classes=tuple(classes), labels=mapping[samples.labels])


def _check_num_classes(samples: Samples, num_classes: int | None, place: Path) -> None:
    found = len(samples.classes)
    if num_classes is not None and found > num_classes:
        raise UserError(f"{place}: {found} classes, but num_classes is {num_classes}; set num_classes: {found}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
