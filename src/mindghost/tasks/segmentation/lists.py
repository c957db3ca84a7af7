"""List files -> pairs of image and mask: in a list of `data.lists`, the path of the mask stands for the label."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import labelled
from ...data.lists import lines as list_lines
from ...data.lists import rows as list_rows
from ...data.lists import split_names, weight_of
from ...data.lists.lines import cut, fail
from ...data.lists.paths import ListPaths
from ...data.lists.rows import Row
from ...errors import UserError
from ...process.display import some
from .layouts import Pairs

_WANTED = "give lines `image mask`, or CSV whose first line is `image,mask`"
_Place = tuple[str, int]  # a path as `ListPaths.find` gives it

log = logging.getLogger("mindghost")


class _Pair(NamedTuple):
    """A line of the list."""

    image: _Place
    mask: _Place
    line: int
    weight: float | None


def pairs(file: Path, key: str, data_dir: Path, split: str, skip: bool = False) -> Pairs:
    """The images and masks that a list names, sorted by the images' paths; each image once.

    Args:
        file: the list.
        key: what it is given by, for messages.
        data_dir: where relative paths begin that lead nowhere from the list's own folder.
        split: whose rows are taken, where the list has such a column.
        skip: leave out what is not there, and count it.

    Raises UserError, which names the line.
    """
    places, wanted = ListPaths(file, data_dir), split_names(split)
    found: dict[str, _Pair] = {}
    others: set[str] = set()
    left_out = 0
    for row in list_rows.rows(file, key, of_files=True):
        if row.split is not None and row.split.lower() not in wanted:
            others.add(row.split)
        elif pair := _pair(file, row, places, skip):
            first = found.setdefault(pair.image[0], pair)
            if first.mask != pair.mask:
                fail(file, row.line, f"{cut(row.path)} has another mask in line {first.line}; keep one of the two")
        else:
            left_out += 1
    if left_out:
        log.warning(f"{file}: {left_out:,} lines whose files are not there are left out (on_bad_image: skip)")
    if not found:
        splits = f" of the split {split!r}, only of {some(sorted(others))}" if others else ""
        raise UserError(f"{key}: {file}: no image in it{splits}; {_WANTED}")
    return _sorted(file, places, list(found.values()))


def _pair(file: Path, row: Row, places: ListPaths, skip: bool) -> _Pair | None:
    """The files of a row; None where one of them is not there, and that may be."""
    if not isinstance(row.label, str):
        fail(file, row.line, f"several labels, expected the path of a mask; {_WANTED}")
    image, mask = places.find(row.path), places.find(row.label)
    for path, place in ((row.path, image), (row.label, mask)):
        if place is None and not skip:
            if list_lines.is_bad_text(path):
                list_lines.refuse_encoding(file, row.line)
            fail(file, row.line, f"{places.why_missing(path)}; correct it, or set on_bad_image: skip; {_WANTED}")
    if image is None or mask is None:
        return None
    return _Pair(image, mask, row.line, None if row.weight is None else weight_of(file, row))


def _sorted(file: Path, places: ListPaths, found: list[_Pair]) -> Pairs:
    sides = [pair.image for pair in found], [pair.mask for pair in found]
    starts = [np.array([start for _, start in side], np.uint8) for side in sides]
    root = places.root(np.unique(np.concatenate(starts)))
    images, masks = (
        places.below(root, np.array([os.fsencode(path) for path, _ in side]), start)
        for side, start in zip(sides, starts, strict=True)
    )
    order = labelled.path_order(images)

    def named(files: NDArray[Any]) -> list[str]:
        return [os.fsdecode(path) for path in files[order]]

    ordered = [found[index] for index in order]
    weights = [pair.weight for pair in ordered if pair.weight is not None]
    return Pairs(root, named(images), named(masks), (), (), "", str(file), [pair.line for pair in ordered], weights)
