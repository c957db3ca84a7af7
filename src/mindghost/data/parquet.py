"""Parquet files as Hugging Face's `datasets` writes image folders -> samples, without unpacking.

A row has an image, a struct of `bytes` and `path` or the bytes alone, and a label, a number or a name; the names of
numbers are in the file's metadata. Reading takes pyarrow, an extra.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import json_text, paths
from ..process import resources
from ..process.display import some
from . import class_names, images, jpeg, labelled
from .places import Shards
from .samples import FileSamples, time_of_change

_AGAIN = "replace the file, or download it again"
_CACHE_BYTES = 256 << 20  # of row groups, that each process holds
# What the columns are called, the likeliest first.
_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "cls", "class")
_PATHS = ("path", "file_name", "filename")

_T = TypeVar("_T")


class _Columns(NamedTuple):
    """The columns of a file: as the file's schema names them, such as `image.bytes`; no path where there is none."""

    image: str
    path: str
    label: str
    names: tuple[str, ...] | None


class RowGroups:
    """Images of the row groups of some files; those that were asked for last are kept, up to some bytes."""

    def __init__(self, files: Sequence[str], columns: Sequence[str]) -> None:
        self._files, self._columns = tuple(files), tuple(columns)
        self._empty()

    def _empty(self) -> None:
        # A process that was forked begins anew: another thread may have held the lock.
        self._process, self._lock = os.getpid(), threading.Lock()
        self._open: dict[int, Any] = {}
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def image(self, file: int, group: int, row: int) -> bytes | None:
        """The bytes of an image by its row in a row group; None where it has none. Raises UserError for damage."""
        if self._process != os.getpid():
            self._empty()
        with self._lock:
            column = self._kept.pop((file, group), None)
            if column is None:
                column = _guarded(self._files[file], lambda: self._read(file, group), f"row group {group}")
            self._kept[file, group] = column
            while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _CACHE_BYTES:
                self._kept.popitem(last=False)
        content: bytes | None = column[row].as_py()
        return content

    def _read(self, file: int, group: int) -> Any:
        if file not in self._open:
            self._open[file] = _library(self._files[file]).ParquetFile(self._files[file], pre_buffer=False)
        column = self._open[file].read_row_group(group, columns=[self._columns[file]], use_threads=False).column(0)
        return _inner(column)


@dataclass(frozen=True, eq=False)
class ParquetSamples(FileSamples):
    """Images in parquet files.

    Attributes:
        titles: names of the parquet files.
        shards, groups, rows, numbers: number of the file, of the row group in it, of the row in that, and of the row in
            the file.
        states: size of each file, and when it was changed, (files, 2).
        row_groups: reads them.
    """

    titles: tuple[str, ...] = ()
    shards: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    groups: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    rows: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    numbers: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    states: tuple[tuple[int, int], ...] = ()
    row_groups: RowGroups = field(default_factory=lambda: RowGroups((), ()), repr=False)

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """The pixels of an image, of which a JPEG file is decoded as far as they are asked for."""
        return images.open_content(self.content(index), self.name(index), self.decoder)

    def content(self, index: int) -> bytes:
        """The bytes of an image file. Raises UserError where the parquet file is damaged, or has none."""
        found = self.row_groups.image(int(self.shards[index]), int(self.groups[index]), int(self.rows[index]))
        if found is None:
            raise UserError(f"{self.name(index)}: no bytes of an image; write the files with the images in them")
        return found

    def size_and_time(self, index: int) -> tuple[int, int]:
        """The size of the parquet file, and when it was changed."""
        return self.states[self.shards[index]]

    def check(self, index: int, decode: bool) -> bool:
        """Read the header of an image, with `decode` its pixels too; see `images.check_image`."""
        return images.check_stream(io.BytesIO(self.content(index)), self.name(index), decode)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as stored, from its header. Raises UserError for one that is not usable."""
        return images.size_of(io.BytesIO(self.content(index)), self.name(index))

    def file_sizes(self) -> NDArray[Any]:
        """Bytes of each image file, int64 (n,): of a parquet file, all images are read for it."""
        found = np.empty(len(self), np.int64)
        for index in self.reading_order(np.arange(len(self))).tolist():
            found[index] = len(self.content(index))
        return found

    def reading_order(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Row group by row group."""
        return indices[np.lexsort((self.numbers[indices], self.shards[indices]))]

    def name(self, index: int) -> str:
        """What the image is called in its class folder, and the row of the file that holds it, which counts from 0."""
        return f"{super().name(index)} (row {self.numbers[index]} of {self.titles[self.shards[index]]})"


class _Part(NamedTuple):
    """What one file says of its images; paths are empty where it has none."""

    columns: _Columns
    labels: list[str]
    paths: list[str]
    group_sizes: list[int]


def open_parquet(place: Shards, decoder: jpeg.Decoder | None = None) -> ParquetSamples:
    """The samples of a split in parquet files: none of the images is read.

    Raises UserError, which names the file, for what is damaged, and for columns that are no images and labels.
    """
    root, files = str(place.root), [str(file) for file in place.files]
    states = []
    for file in files:
        paths.check_file(file, _AGAIN)
        status = os.stat(file)
        states.append((status.st_size, time_of_change(status)))
    parts = [_guarded(file, lambda file=file: _part(file), "its labels") for file in files]  # type: ignore[misc]
    for file, part in zip(files, parts, strict=True):
        if part.columns.names != parts[0].columns.names:
            raise UserError(f"{file}: other class names than {files[0]} has; write them in one go")
    labels_said = [label for part in parts for label in part.labels]
    if not labels_said:
        raise UserError(f"{root}: no row in {_files(place)}")
    classes, labels, numbered = labelled.settled(labels_said, parts[0].columns.names, root)
    titles = tuple(file.name for file in place.files)
    shards = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.labels) for part in parts])
    numbers = np.concatenate([np.arange(len(part.labels)) for part in parts])
    sizes = [part.group_sizes for part in parts]
    groups = np.concatenate([np.repeat(np.arange(len(each), dtype=np.int32), each) for each in sizes])
    rows = np.concatenate([np.arange(size, dtype=np.int32) for each in sizes for size in each])
    names = [_file_name(path, classes[label]) for path, label in zip(_all_paths(parts), labels, strict=True)]
    called = _called(names, shards, numbers, titles)
    samples = ParquetSamples(
        classes,
        labels,
        root,
        called,
        decoder,
        titles,
        shards,
        groups,
        rows,
        numbers,
        tuple(states),
        RowGroups(files, [part.columns.image for part in parts]),
        numbered=numbered,
    )
    return samples.take(labelled.folder_order(labels, called))


def _files(place: Shards) -> str:
    names = [file.name for file in place.files]
    return names[0] if len(names) == 1 else f"{len(names):,} parquet files ({some(names, 2)})"


def _all_paths(parts: Sequence[_Part]) -> list[str]:
    return [path for part in parts for path in part.paths or [""] * len(part.labels)]


def _file_name(path: str, name: str) -> str:
    """A path that begins with the class, as that of a file in a class folder does; empty where there is no path."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if name in parts[:-1]:
        return "/".join(parts[parts.index(name) :])
    return "/".join([name, *parts]) if parts else ""


def _called(names: Sequence[str], shards: NDArray[Any], numbers: NDArray[Any], titles: Sequence[str]) -> NDArray[Any]:
    """What each image is called, no two alike: rows without a path by their file and number, in this order."""
    found = np.array([os.fsencode(name) for name in names])
    if (found != b"").all() and len(np.unique(found)) == len(found):
        return found
    called = [
        f"{name}/{title}/{number:09}" if name else f"{title}/{number:09}"
        for name, title, number in zip(names, (titles[shard] for shard in shards), numbers, strict=True)
    ]
    return np.array([os.fsencode(name) for name in called])


# --- What a file has


def _part(file: str) -> _Part:
    opened = _library(file).ParquetFile(file, pre_buffer=False)
    columns = _columns(file, opened.schema_arrow)
    wanted = [columns.label, *([columns.path] if columns.path else [])]
    table = opened.read(columns=wanted, use_threads=False)
    labels = _inner(table.column(columns.label.partition(".")[0])).to_pylist()
    for row, label in enumerate(labels):
        if label is None or label == "" or label == -1:
            raise UserError(f"{file}: row {row}: no label in {columns.label}; leave the row out, or write its class")
        if isinstance(label, int) and label < 0:
            raise UserError(f"{file}: row {row}: {columns.label} is {label}; labels count from 0")
    found = _inner(table.column(columns.path.partition(".")[0])).to_pylist() if columns.path else []
    complete = all(isinstance(path, str) and path for path in found)
    groups = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
    return _Part(columns, list(map(str, labels)), found if complete else [], groups)


def _columns(file: str, schema: Any) -> _Columns:
    """Which columns of a file are images, paths and labels. Raises UserError where that would have to be guessed."""
    types = _library(file, "types")
    fields = {each.name: each.type for each in schema}
    known = f"its columns are {some(list(fields), 8) or 'none'}"

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(each.name == "bytes" and is_binary(each.type) for each in kind)
        return is_binary(kind)

    def is_binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = [name for name, kind in fields.items() if is_image(kind)]
    image = next((name for name in _IMAGES if name in found), found[0] if len(found) == 1 else "")
    if not image:
        raise UserError(
            f"{file}: expected one column of images, a struct of bytes and path, or binary, got {len(found)}; {known}"
        )
    features = _features(file, schema.metadata or {})
    class_labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    label = next((name for name in (*_LABELS, *class_labels) if name in fields), "")
    if not label:
        raise UserError(f"{file}: expected a column of labels, such as label; {known}")
    kind = fields[label].value_type if types.is_dictionary(fields[label]) else fields[label]
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise UserError(f"{file}: {label} holds {kind}; expected one class of each image, a number or a name")
    names = features.get(label, {}).get("names")
    if names is not None:
        names = tuple(class_names.checked(names, f"{file}: names of {label}", _AGAIN))
    if not types.is_struct(fields[image]):
        path = next((name for name in _PATHS if name in fields and types.is_string(fields[name])), "")
        return _Columns(image, path, label, names)
    inside = [each.name for each in fields[image]]
    return _Columns(f"{image}.bytes", f"{image}.path" if "path" in inside else "", label, names)


def _features(file: str, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What Hugging Face notes of each column."""
    text = metadata.get(b"huggingface")
    if text is None:
        return {}
    value = json_text.parse(text.decode("utf-8", "replace"), f"{file}: its metadata for Hugging Face", _AGAIN)
    try:
        features = value["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, AttributeError):
        return {}


def _inner(column: Any) -> Any:
    """A column, or of a struct of which one field was read, that field."""
    while str(column.type).startswith("struct<"):
        compute = _library("", "compute")
        column = compute.struct_field(column, [0])
    return column


def _library(file: str, module: str = "parquet") -> Any:
    try:
        import pyarrow.compute
        import pyarrow.parquet
        import pyarrow.types
    except ImportError as error:
        resources.check(error, "pyarrow")
        raise UserError(f"{file}: pyarrow reads it ({error}); pip install 'mindghost[parquet]'") from error
    return getattr(pyarrow, module)


def _guarded(file: str, work: Callable[[], _T], what: str) -> _T:
    """The result of reading; all that pyarrow says of a damaged file becomes one line. `what` is being read."""
    try:
        return work()
    except (UserError, RunError):
        raise
    # A damaged file may be anything to pyarrow: ArrowInvalid, OSError, ValueError, a lack of memory for odd sizes.
    except Exception as error:
        resources.check(error, file)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{file}: {what} cannot be read as parquet ({reason}); {_AGAIN}") from error
