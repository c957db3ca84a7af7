"""Images that say their label themselves -> samples as of class folders: in their order, with their labels."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..process.display import some

_MOST_DIGITS = 6  # of the number of a class
_ROWS = 1 << 16  # paths that are changed at a time
_LOWEST = 1  # letter that a path can have


class Settled(NamedTuple):
    """Class names in label order, the label of each image, int32 (n,), and whether the names are mere numbers."""

    classes: tuple[str, ...]
    labels: NDArray[Any]
    numbered: bool


def settled(labels: Sequence[str], names: Sequence[str] | None, place: str) -> Settled:
    """The classes of images that say their label.

    Args:
        labels: what each image says. Where all are numbers they are the labels; else they are names.
        names: class names in label order, where they are known. Absent: the names of numbers are the numbers; other
            names have the labels of class folders, in sorted order.
        place: for messages.

    Raises UserError for a label that no name belongs to.
    """
    found = sorted(set(labels))
    if all(label.isascii() and label.isdecimal() for label in found):
        largest = max(found, key=lambda label: (len(label.lstrip("0")), label.lstrip("0")))
        if len(largest.lstrip("0")) > _MOST_DIGITS:
            raise UserError(f"{place}: label {largest[:40]}: labels count classes, from 0; correct it")
        count = int(largest) + 1
        if names is not None and count > len(names):
            raise UserError(
                f"{place}: label {int(largest)}, but there are {len(names)} class names, and labels count from 0"
            )
        numbers = _mapped(labels, {label: int(label) for label in found})
        return Settled(tuple(names or map(str, range(count))), numbers, names is None)
    if names is None:
        return by_name(labels)
    label_of = {name: label for label, name in enumerate(names)}
    if unknown := [label for label in found if label not in label_of]:
        raise UserError(
            f"{place}: labels that none of the {len(label_of)} class names is: {some(unknown)}; correct the labels or "
            "the names"
        )
    return Settled(tuple(label_of), _mapped(labels, label_of), False)


def by_name(labels: Sequence[str]) -> Settled:
    """The classes of images whose labels are names: sorted as class folders are."""
    classes = sorted(set(labels))
    return Settled(tuple(classes), _mapped(labels, {name: label for label, name in enumerate(classes)}), False)


def look_alike(unknown: Sequence[str], classes: Sequence[str]) -> str:
    """A remark, where a name is a known one written in other Unicode characters (`é` as one, or as two)."""
    known = {unicodedata.normalize("NFC", name): name for name in classes}
    for name in unknown:
        if (other := known.get(unicodedata.normalize("NFC", name))) is not None:
            form = "NFC" if unicodedata.is_normalized("NFC", name) else "NFD"
            return (
                f"; {name} looks like the known {other}, but is written in other Unicode characters ({form}): write it "
                "as it was"
            )
    return ""


def _mapped(labels: Sequence[str], of: Mapping[str, int]) -> NDArray[Any]:
    return np.fromiter((of[label] for label in labels), np.int32, len(labels))


def folder_order(labels: NDArray[Any], files: NDArray[Any]) -> NDArray[Any]:
    """Indices that put images into the order of class folders: by label, then by path, folder by folder (see `walk`).

    Args:
        labels: int, (n,).
        files: paths as bytes, (n,).
    """
    order = path_order(files)
    return order[np.argsort(labels[order], kind="stable")]


def path_order(files: NDArray[Any]) -> NDArray[Any]:
    """Indices that sort paths, bytes (n,), folder by folder (see `walk`); equal ones stay in their order.

    `files` is changed while it is sorted, and is as it was afterwards: of millions of paths a copy would be large.
    """
    parts = [files[start : start + _ROWS].view(np.uint8) for start in range(0, len(files), _ROWS)]
    odd = any(part.max() >= 0x80 for part in parts) and any(map(_is_no_text, files))
    if odd or any((part == _LOWEST).any() for part in parts):
        # Names that are no UTF-8 `walk` sorts by what Python makes of them.
        names = [os.fsdecode(path).split("/") for path in files]
        return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    # The order of UTF-8 is that of its characters. A separator has to come before all that may follow a folder.
    for part in parts:
        part[part == ord("/")] = _LOWEST
    order = np.argsort(files, kind="stable")
    for part in parts:
        part[part == _LOWEST] = ord("/")
    return order


def _is_no_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return True
    return False
