"""The columns of a table, or the names in a JSON object -> which of them has the path, the label and so on."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from ...process.display import some
from .lines import WANTED, cut, fail

# What people call the columns; of the first group that a list has one of, that one is taken.
_PATHS = (
    ("path", "paths", "filepath", "filepaths", "file_path", "image_path", "img_path", "image_file", "relative_path"),
    ("file_name", "filename", "filenames", "file", "image_name", "img_name", "image_filename", "fname"),
    ("image", "img", "images"),
    ("image_id", "img_id", "id"),
)
_LABELS = (
    ("label", "labels"),
    ("class", "classes", "class_name", "category", "category_name", "label_name", "target", "tags"),
    ("class_id", "label_id", "category_id", "class_idx", "label_idx", "class_label"),
    ("mask", "masks", "mask_path", "mask_file", "segmentation", "annotation"),
)
_SPLITS = (("split", "splits"), ("subset", "partition", "phase"), ("set", "data_set", "dataset"))
_WEIGHTS = (("weight", "weights", "sample_weight"),)
_ONE, _ZERO = ("1", "1.0"), ("0", "0.0")


class Columns(NamedTuple):
    """Which cells of a row hold what.

    Attributes:
        path, split, weight: number of the cell; None where there is none.
        label: number of the cell; None where each of `classes` has a cell, 1 for a label that an image has.
        classes: number and name of each.
    """

    path: int
    label: int | None
    split: int | None
    weight: int | None
    classes: tuple[tuple[int, str], ...] = ()

    def labels(self, file: Path, line: int, cells: Sequence[str]) -> str | tuple[str, ...]:
        """The label of a row, or its labels. Raises UserError for what is neither 0 nor 1 below a class."""
        if self.label is not None:
            return cells[self.label].strip()
        for index, name in self.classes:
            if cells[index].strip() not in _ONE + _ZERO:
                fail(file, line, f"column {cut(name)}: expected 0 or 1, as in the first row, got {cut(cells[index])!r}")
        return tuple(name for index, name in self.classes if cells[index].strip() in _ONE)


def columns(file: Path, names: Sequence[str], line: int = 1, first: Sequence[str] = ()) -> Columns:
    """Which of the columns of these names are meant.

    Args:
        file, line: where the names are, for messages.
        names: as they are written.
        first: cells of the first row: where no column has the label, those that are all 0 or 1 are classes.

    Raises UserError where there is none for the path or the label, or two for one thing.
    """
    plain = list(map(_plain, names))
    path, label = _column(file, line, plain, _PATHS), _column(file, line, plain, _LABELS)
    split, weight = _column(file, line, plain, _SPLITS), _column(file, line, plain, _WEIGHTS)
    if path is not None and label is None and len(first) == len(names):
        others = [index for index, name in enumerate(plain) if name and index not in (path, split, weight)]
        if len(others) > 1 and all(first[index].strip() in _ONE + _ZERO for index in others):
            return Columns(path, None, split, weight, tuple((index, names[index].strip()) for index in others))
    if path is None or label is None:
        lacks = "path" if path is None else "label"
        found = some([cut(name) or "''" for name in names])
        fail(file, line, f"no column for the {lacks}; name one of these {lacks}: {found}")
    return Columns(path, label, split, weight)


def delimiter(first: str) -> str:
    """What parts the cells of a table, by its first line; empty where that has no names of columns."""
    for sign in ",\t;":
        try:
            names = list(map(_plain, next(csv.reader([first], delimiter=sign), [])))
        except csv.Error:
            continue
        if any(name in group for group in (*_PATHS, *_LABELS) for name in names):
            return sign
    return ""


def refuse_header(file: Path, first: str) -> NoReturn:
    """Raise UserError for the first line of a table that names no columns."""
    if not first.strip():
        fail(file, 1, f"an empty first line; {WANTED}")
    fail(file, 1, f"the first line names no columns ({cut(first)!r}); put `path,label` there")


def _column(file: Path, line: int, names: Sequence[str], groups: Sequence[Sequence[str]]) -> int | None:
    """Which of the columns is meant by one of these names; None where none is."""
    for group in groups:
        found = [index for index, name in enumerate(names) if name in group]
        if len(found) > 1:
            both = " and ".join(names[index] for index in found)
            fail(file, line, f"two columns for one thing, {both}; rename the one that is meant to {groups[0][0]}")
        if found:
            return found[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())
