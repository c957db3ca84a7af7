"""ImageNet's validation images as they are downloaded, in one flat folder or tar file, with labels from elsewhere.

The labels are those of ILSVRC2012's devkit, which numbers the classes in an order of its own, of Kaggle's
`LOC_val_solution.csv`, or of a list as Caffe has it (`val.txt`). Classes are the synsets' ids, sorted, as those of the
folders of the training images are.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import paths
from ...process import resources
from .. import jpeg, labelled, walk
from ..samples import FolderSamples
from . import names as imagenet_names

_IMAGE = re.compile(r"(ILSVRC20\d\d_val_(\d{8}))\.jpe?g", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_KAGGLE = "LOC_val_solution.csv"
_LISTS = ("val.txt", "val_list.txt")
_MOST_BYTES = 64_000_000  # of a devkit's file or a list; the largest has some 2 MB
_LEVELS = 4  # how far above the images their labels are looked for: Kaggle has them three levels up
_LEVELS_OF_LISTS = 2  # whose names may be those of other sets' lists further up
_REMEDY = "copy or download it again"

Truth = tuple[tuple[str, ...], dict[str, str]]  # classes; synset of each image, by its name without an ending


def is_flat(folder: Path) -> bool:
    """Whether a folder has ImageNet's validation images in it, and no class folders."""
    return any(map(_IMAGE.fullmatch, paths.names_in(folder))) and not walk.class_folders(folder, walk.LeftOut())


def all_flat(names: Iterable[str]) -> bool:
    """Whether all of some paths are ImageNet's validation images, in no folder."""
    return all(map(_IMAGE.fullmatch, names))


def open_flat(root: Path, decoder: jpeg.Decoder | None = None) -> FolderSamples:
    """ImageNet's validation images in a folder, in the order of class folders.

    Raises UserError where there are no labels, or none for one of the images.
    """
    left_out = walk.LeftOut()
    found = [Path(file).name for file in walk.image_files(root, left_out)]
    names = [name for name in found if _IMAGE.fullmatch(name)]
    left_out.stray += [str(root / name) for name in found if not _IMAGE.fullmatch(name)]
    left_out.say(root)
    classes, labels = labels_of(names, root)
    files = np.array([name.encode() for name in names])
    samples = FolderSamples(classes, labels, str(root), files, decoder)
    return samples.take(labelled.folder_order(labels, files))


def labels_of(names: Sequence[str], place: Path) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Classes, and the label of each image, int32 (n,), from what lies beside the place of the images or above it.

    Raises UserError where there is nothing, or something that does not fit.
    """
    (classes, synset_of), source = _truth(place)
    label_of = {synset: label for label, synset in enumerate(classes)}
    labels = np.empty(len(names), np.int32)
    for index, name in enumerate(names):
        match = _IMAGE.fullmatch(name)
        synset = synset_of.get(match[1]) if match else None
        if synset is None:
            raise UserError(f"{place / name}: {source} has no label for it; {_REMEDY}, or leave the image out")
        labels[index] = label_of[synset]
    return classes, labels


def _truth(place: Path) -> tuple[Truth, Path]:
    """What is known of the images in a place, and the file that knows it."""
    for level, folder in enumerate([place, *place.absolute().parents][: _LEVELS + 1]):
        for name in (_DEVKIT, f"{_DEVKIT}.tar.gz", f"{_DEVKIT}.tar"):
            if paths.exists(folder / name):
                return _of_devkit(folder / name), folder / name
        if paths.exists(folder / _KAGGLE):
            return _of_kaggle(folder / _KAGGLE), folder / _KAGGLE
        for name in _LISTS if level < _LEVELS_OF_LISTS else ():
            if paths.is_file(folder / name):
                return _of_list(folder / name), folder / name
    raise UserError(
        f"{place}: ImageNet's validation images, but no labels of them; put {_DEVKIT}.tar.gz (from image-net.org) or "
        f"{_KAGGLE} (from Kaggle) beside the folder"
    )


# --- The devkit


def _of_devkit(path: Path) -> Truth:
    read = _in_folder(path) if paths.is_folder(path) else _in_archive(path)
    where, content = read(_META)
    synset_of = _synsets(where, content)
    where, content = read(_TRUTH)
    found = {}
    for line, text in enumerate(content.decode("ascii", "replace").split(), 1):
        if not (text.isdecimal() and int(text[:9]) in synset_of):
            raise UserError(
                f"{where}: line {line}: expected the number of a class in {_META}, got {text[:40]}; {_REMEDY}"
            )
        found[f"ILSVRC2012_val_{line:08}"] = synset_of[int(text)]
    return tuple(sorted(synset_of.values())), found


def _in_folder(folder: Path) -> Callable[[str], tuple[str, bytes]]:
    def read(name: str) -> tuple[str, bytes]:
        path = folder / "data" / name
        return str(path), paths.read(path, _REMEDY, _MOST_BYTES)

    return read


def _in_archive(path: Path) -> Callable[[str], tuple[str, bytes]]:
    content = paths.read(path, _REMEDY, _MOST_BYTES)

    def read(name: str) -> tuple[str, bytes]:
        where = f"{path}: {name}"
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                members = [each for each in archive if each.isfile() and each.name.endswith(f"data/{name}")]
                file = archive.extractfile(members[0]) if members else None
                found = file.read(_MOST_BYTES) if file else None
        except Exception as error:  # a damaged archive: of zlib, tarfile, and of sizes that are none
            raise _damaged(where, error) from error
        if found is None:
            raise UserError(f"{where} is not in it; {_REMEDY}")
        return where, found

    return read


def _damaged(where: str, error: Exception) -> Exception:
    resources.check(error, where)
    return UserError(
        f"{where} cannot be read ({' '.join(str(error).split())[:120] or type(error).__name__}); {_REMEDY}"
    )


def _synsets(where: str, content: bytes) -> Mapping[int, str]:
    """The devkit's number -> synset id, of the classes: those without synsets below them."""
    from scipy import io as matlab

    try:
        table = np.atleast_1d(matlab.loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        rows = zip(table["ILSVRC2012_ID"], table["WNID"], table["num_children"], strict=True)
        found = {int(number): str(synset) for number, synset, below in rows if int(below) == 0}
    except Exception as error:  # a damaged file is anything to scipy
        raise _damaged(where, error) from error
    if not found or not all(map(_SYNSET.fullmatch, found.values())) or len(set(found.values())) < len(found):
        raise UserError(f"{where}: expected numbers and ids of synsets; {_REMEDY}")
    return found


# --- Lists


def _of_kaggle(path: Path) -> Truth:
    found = {}
    rows = csv.reader(io.StringIO(_text(path)))
    for line, row in enumerate(rows, 1):
        if line == 1 and row[:1] == ["ImageId"]:
            continue
        synset = row[1].split(" ")[0] if len(row) == 2 else ""
        if not _SYNSET.fullmatch(synset):
            raise UserError(f"{path}: line {line}: expected an image and its synset, such as n01440764; {_REMEDY}")
        found[row[0]] = synset
    return tuple(sorted(set(found.values()))), found


def _of_list(path: Path) -> Truth:
    """Lines of an image and its label, the number in the order of the synsets' ids."""
    classes = imagenet_names.synsets()
    found = {}
    for line, (name, label) in _pairs(path):
        if not (label.isdecimal() and int(label[:9]) < len(classes)):
            raise UserError(
                f"{path}: line {line}: expected a label of 0 to {len(classes) - 1}, got {label[:40]}; correct it"
            )
        found[name.rpartition("/")[2].rpartition(".")[0]] = classes[int(label)]
    return classes, found


def _pairs(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for line, text in enumerate(_text(path).splitlines(), 1):
        parts = text.split()
        if len(parts) != 2:
            raise UserError(f"{path}: line {line}: expected an image and its label, got {text[:60]!r}; correct it")
        yield line, (parts[0], parts[1])


def _text(path: Path) -> str:
    content = paths.read(path, _REMEDY, _MOST_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: no UTF-8 text; {_REMEDY}") from error
