"""List files -> samples: the images that a list names, wherever they lie, in the order of class folders.

Relative paths are looked for in the list's own folder first, then in `data_dir`. Lines may come in any order: samples
are sorted by label, then by path as `walk` does, so that batches are those of the same images in class folders.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...process.display import some
from .. import jpeg, labelled
from ..samples import FolderSamples
from . import labels as list_labels
from . import lines as list_lines
from . import rows as list_rows
from .labels import Known, Labels, Written
from .lines import cut, fail
from .paths import ListPaths
from .rows import Row

_CHUNK = 1 << 16  # rows that are Python objects at a time
_SHOWN = 100  # lines of missing images that are listed
# Rows of a split are those that have its name, or one of these.
_SPLITS = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}, "test": {"test", "testing"}}
_Columns = dict[str, NDArray[Any]]

log = logging.getLogger("mindghost")


@dataclass(frozen=True, eq=False)
class ListSamples(FolderSamples):
    """Image files that a list names.

    Attributes:
        source: path of the list.
        lines: which line of it names each image, (n,).
    """

    source: str = field(kw_only=True)
    lines: NDArray[Any] = field(kw_only=True)

    @property
    def title(self) -> str:
        """The list."""
        return self.source

    def where(self, index: int) -> str:
        """The line that names a sample, for messages."""
        return f"{self.source}:{self.lines[index]}"

    def _identity(self) -> NDArray[Any]:
        """Paths below the folder that all images share: that of class folders, so that a run may go on with either."""
        width = self.files.dtype.itemsize
        letters = self.files.view(np.uint8).reshape(-1, width)
        same = np.ones(width, bool)
        for start in range(0, len(letters), _CHUNK):
            same &= (letters[start : start + _CHUNK] == letters[0]).all(axis=0)
        shared = bytes(letters[0, : width if same.all() else int(same.argmin())])
        begin = shared.rfind(os.fsencode(os.sep)) + 1
        return np.ascontiguousarray(letters[:, begin:]).view(f"S{width - begin}").ravel()


@dataclass(frozen=True)
class Options:
    """How a list is read.

    Attributes:
        key: what it is given by, for messages.
        data_dir: where relative paths begin that lead nowhere from the list's own folder.
        split: name of the split whose rows are taken, where the list has such a column.
        split_key: the key that says so.
        known: what is known of the classes.
        skip: leave out images that are not there, and count them.
    """

    key: str
    data_dir: Path
    split: str
    split_key: str
    known: Known
    skip: bool = False


def open_list(file: Path, options: Options, decoder: jpeg.Decoder | None = None) -> ListSamples:
    """The samples of a list: each image once, every one of them there; none is opened.

    Only a few of the rows are Python objects at a time, so that a list may have millions.

    Raises UserError for a list that is bad, with its line.
    """
    table = _Table(file, options)
    rows = list_rows.rows(file, options.key)
    while chunk := list(islice(rows, _CHUNK)):
        table.add(chunk)
    root, columns = table.finished()
    _sort(columns, labelled.path_order(columns["files"]))
    first = _first_of_each(columns["files"])
    classes, labels = list_labels.settled(Labels(file, table.labels, columns["codes"], columns["lines"]), options.known)
    columns["labels"] = labels
    _check_agreement(file, columns, classes, first)
    if options.known.several:
        np.maximum.at(columns["labels"], first, labels)
    kept = np.flatnonzero(first == np.arange(len(first)))
    if len(kept) < len(first):
        _sort(columns, kept)
    _sort(columns, np.argsort(_first_label(columns["labels"]), kind="stable"))
    return ListSamples(
        classes,
        columns["labels"],
        str(root),
        columns["files"],
        decoder,
        scope=f"{os.path.realpath(file)} {options.split}",
        source=str(file),
        lines=columns["lines"],
        weights=columns.get("weights"),
        numbered=not _are_known(options.known) and all(name == str(label) for label, name in enumerate(classes)),
    )


def split_names(name: str) -> set[str]:
    """What the column of splits may have for the split of this name, in lower case."""
    return _SPLITS.get(name.lower(), set()) | {name.lower()}


def _are_known(known: Known) -> bool:
    return known.names is not None or known.trained is not None


class _Table:
    """The rows of a list as columns, chunk by chunk.

    Attributes:
        labels: each label that there is, as it is written -> its code.
    """

    def __init__(self, file: Path, options: Options) -> None:
        self._file, self._options = file, options
        self._paths = ListPaths(file, options.data_dir)
        self._wanted = split_names(options.split)
        self._chunks: list[_Columns] = []
        self._others: dict[str, int] = {}  # rows of other splits
        self._missing: list[tuple[int, str]] = []  # the first ones: line, path
        self._missing_count = 0
        self.labels: dict[Written, int] = {}

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows up. Raises UserError for a bad one."""
        files: list[bytes] = []
        places, codes, lines, weights = bytearray(), [], [], []
        for row in rows:
            if row.split is not None and not self._is_wanted(row):
                continue
            code = self.labels.get(row.label)
            if code is None:
                code = self._new_label(row)
            weight = None if row.weight is None else weight_of(self._file, row)
            found = self._paths.find(row.path)
            if found is None:
                self._miss(row)
                continue
            files.append(os.fsencode(found[0]))
            places.append(found[1])
            codes.append(code)
            lines.append(row.line)
            if weight is not None:
                weights.append(weight)
        if not files:
            return
        columns = {
            "files": np.array(files),
            "places": np.frombuffer(bytes(places), np.uint8),
            "codes": np.array(codes, np.int32),
            "lines": np.array(lines, np.uint32),
        }
        self._chunks.append(columns | ({"weights": np.array(weights, np.float32)} if weights else {}))

    def finished(self) -> tuple[Path, _Columns]:
        """Where paths begin, and the columns. Raises UserError where images are missing, or there is none."""
        self._check_missing()
        if not self._chunks:
            self._refuse_empty()
        root = self._paths.root(np.unique(np.concatenate([chunk["places"] for chunk in self._chunks])))
        for chunk in self._chunks:
            chunk["files"] = self._paths.below(root, chunk["files"], chunk.pop("places"))
        # One after the other: of the paths, no second copy is ever whole.
        return root, {name: _joined(self._chunks, name) for name in list(self._chunks[0])}

    def _check_missing(self) -> None:
        if not self._missing:
            return
        line, path = self._missing[0]
        if not self._options.skip:
            others = some([line for line, _ in self._missing[1:]])
            more = f" ({self._missing_count - 1:,} more, in lines {others})" if others else ""
            fail(self._file, line, f"{self._paths.why_missing(path)}{more}; correct it, or set on_bad_image: skip")
        for line, path in self._missing:
            log.warning(f"left out: {self._file}:{line}: {self._paths.why_missing(path)}")
        log.warning(f"{self._file}: {self._missing_count:,} images that are not there left out (on_bad_image: skip)")

    def _refuse_empty(self) -> None:
        start = f"{self._options.key}: {self._file}"
        if self._others:
            counts = some([f"{cut(name)} ({count:,})" for name, count in self._others.items()])
            raise UserError(
                f"{start}: no row of the split {self._options.split!r}; it has {counts}: name one of them by "
                f"{self._options.split_key}"
            )
        if self._missing:
            raise UserError(f"{start}: none of its images is there; {self._paths.why_missing(self._missing[0][1])}")
        raise UserError(f"{start}: no image in it; {list_lines.WANTED}")

    def _is_wanted(self, row: Row) -> bool:
        split = (row.split or "").lower()
        if split in self._wanted:
            return True
        if not split:
            fail(self._file, row.line, "an empty split; write which one the image belongs to, or remove the line")
        if split in self._others or len(self._others) < _SHOWN:
            self._others[split] = self._others.get(split, 0) + 1
        return False

    def _new_label(self, row: Row) -> int:
        several = self._options.known.several
        list_labels.check(self._file, row.line, row.label, several)
        if len(self.labels) == list_labels.MOST and not several:
            fail(self._file, row.line, f"over {list_labels.MOST:,} different labels; are path and label swapped?")
        return self.labels.setdefault(row.label, len(self.labels))

    def _miss(self, row: Row) -> None:
        if list_lines.is_bad_text(row.path):
            list_lines.refuse_encoding(self._file, row.line)
        self._missing_count += 1
        if len(self._missing) < _SHOWN:
            self._missing.append((row.line, row.path))


def _joined(chunks: Sequence[_Columns], name: str) -> NDArray[Any]:
    """A column of all chunks, which lose it on the way."""
    width = max(chunk[name].dtype for chunk in chunks)
    whole = np.empty(sum(len(chunk[name]) for chunk in chunks), width)
    at = 0
    for chunk in chunks:
        part = chunk.pop(name)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def weight_of(file: Path, row: Row) -> float:
    """How much the image of a row counts. Raises UserError for what is no number over 0."""
    try:
        weight = math.nan if isinstance(row.weight, bool) else float(np.float32(row.weight))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        weight = math.nan
    # What a loss is multiplied by is a number of 32 bits.
    if not (weight > 0 and math.isfinite(weight)):
        fail(file, row.line, f"weight: expected a number over 0, got {cut(str(row.weight))!r}")
    return weight


# --- Order


def _sort(columns: _Columns, order: NDArray[Any]) -> None:
    for name in columns:
        columns[name] = columns[name][order]


def _first_label(labels: NDArray[Any]) -> NDArray[Any]:
    """What to sort samples by; those without a label come last."""
    if labels.ndim == 1:
        return labels
    return np.where(labels.any(axis=1), labels.argmax(axis=1), labels.shape[1])


# --- Images that are named twice


def _first_of_each(files: NDArray[Any]) -> NDArray[Any]:
    """Of each of some sorted paths, the index of the first one that is equal, (n,)."""
    new = np.ones(len(files), bool)
    new[1:] = files[1:] != files[:-1]
    return np.flatnonzero(new)[np.cumsum(new) - 1]


def _check_agreement(file: Path, columns: _Columns, classes: Sequence[str], first: NDArray[Any]) -> None:
    """Raise UserError where two lines about an image contradict each other; say that it is taken once otherwise."""
    again = np.flatnonzero(first != np.arange(len(first)))
    if not len(again):
        return
    lines = columns["lines"]
    path = os.fsdecode(columns["files"][again[0]])
    for what in ("labels", "weights"):
        values = columns.get(what)
        if values is None or values.ndim > 1:
            continue
        for index in again[values[again] != values[first[again]]][:1]:
            path = os.fsdecode(columns["files"][index])
            here, there = (f"{classes[v]}" if what == "labels" else f"{v:g}" for v in values[[index, first[index]]])
            word = what.removesuffix("s")
            fail(
                file,
                int(lines[index]),
                f"{path} has the {word} {cut(here)} here, and {cut(there)} in line {lines[first[index]]}; keep one",
            )
    what = "their labels are put together" if columns["labels"].ndim > 1 else "each image is taken once"
    log.warning(
        f"{file}: {len(again):,} line(s) name an image that another line names, too: {what}; such as {path}, in lines "
        f"{lines[first[again[0]]]} and {lines[again[0]]}"
    )
