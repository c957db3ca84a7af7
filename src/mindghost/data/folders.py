"""Image folders -> samples: `CLASS/**`.

A class is a direct subfolder, labels follow the sorted names, images lie in it or below it (see `walk`).
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import paths
from ..process.display import some
from . import jpeg, walk
from .samples import FolderSamples

_FOLDERS_SEEN = 10  # of those that may be classes

_logger = logging.getLogger("mindghost")


def open_folders(root: Path, decoder: jpeg.Decoder | None = None, mixed: bool = False) -> FolderSamples:
    """The image files below the class folders of a folder, by their names: none is opened.

    `mixed`: other things may lie beside the classes, such as a folder of runs; a folder without images is no class.

    Raises UserError where there is no class folder, one without images, or only one that is no class but a split.
    """
    left_out = walk.LeftOut()
    folders = walk.class_folders(root, left_out)
    if not folders:
        raise UserError(f"{root}: no class folder in it; expected {root}/CLASS/*.jpg")
    found = {folder: _below(root, folder, left_out) for folder in folders}
    left_out.say(root)
    empty = [folder for folder, files in found.items() if not files]
    if empty and (not mixed or len(empty) == len(folders)):
        raise UserError(f"{root / empty[0]}: no image in this class folder; add some or remove the folder")
    if empty:
        _logger.warning(f"{root}: folders without images are no classes: {some(empty)}")
    classes = tuple(folder for folder in folders if found[folder])
    if len(classes) == 1:
        _check_depth(root, list(map(os.fsdecode, found[classes[0]])))
    _say_twins(root, classes)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found[folder]) for folder in classes])
    files = np.array([file for folder in classes for file in found[folder]])
    return FolderSamples(classes, labels, str(root), files, decoder)


def _below(root: Path, folder: str, left_out: walk.LeftOut) -> list[bytes]:
    """The image files of a class folder, by their paths below `root`."""
    return [os.fsencode(os.path.relpath(file, root)) for file in walk.image_files(root / folder, left_out)]


def has_classes(root: Path) -> bool:
    """Whether folders in a folder hold images themselves, so that they are classes."""
    if not paths.is_folder(root):
        return False
    names = walk.class_folders(root, walk.LeftOut())
    return any(any(map(walk.is_image, paths.names_in(root / name))) for name in names[:_FOLDERS_SEEN])


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
