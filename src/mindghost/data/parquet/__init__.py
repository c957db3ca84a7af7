"""Parquet files as Hugging Face's `datasets` writes image folders -> samples, without unpacking.

A row has an image, a struct of `bytes` and `path` or the bytes alone, and a label, a number or a name; the names of
numbers are in the file's metadata. Reading takes pyarrow, an extra.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import json_text, paths
from ...process.display import some
from .. import class_names, images, jpeg, labelled
from ..places import Shards
from ..samples import FileSamples, time_of_change
from . import row_groups
from .row_groups import RowGroups

_EMBED = "write the files with the images in them, as `push_to_hub` does, or give the folder of the images as data_dir"
# What the columns are called, the likeliest first.
_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "cls", "class")
_PATHS = ("path", "file_name", "filename")


class _Columns(NamedTuple):
    """The columns of a file: as the file's schema names them, such as `image.bytes`; no path where there is none."""

    image: str
    path: str
    label: str
    names: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class ParquetSamples(FileSamples):
    """Images in parquet files.

    Attributes:
        titles: names of the parquet files.
        shards, groups, rows, numbers: number of the file, of the row group in it, of the row in that, and of the row in
            the file.
        states: size of each file, and when it was changed, (files, 2).
        reader: reads them.
    """

    titles: tuple[str, ...] = ()
    shards: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    groups: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    rows: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    numbers: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    states: tuple[tuple[int, int], ...] = ()
    reader: RowGroups = field(default_factory=lambda: RowGroups((), ()), repr=False)

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """The pixels of an image, of which a JPEG file is decoded as far as they are asked for."""
        return images.open_content(self.content(index), self.name(index), self.decoder)

    def content(self, index: int) -> bytes:
        """The bytes of an image file. Raises UserError where the parquet file is damaged, or has none."""
        found = self.reader.image(int(self.shards[index]), int(self.groups[index]), int(self.rows[index]))
        if found is None:
            raise UserError(f"{self.name(index)}: no bytes of an image; {_EMBED}")
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
        paths.check_file(file, row_groups.AGAIN)
        status = os.stat(file)
        states.append((status.st_size, time_of_change(status)))
    parts = [row_groups.guarded(file, lambda file=file: _part(file), "its labels") for file in files]  # type: ignore[misc]
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
    opened = row_groups.library(file).ParquetFile(file, pre_buffer=False)
    columns = _columns(file, opened.schema_arrow)
    if opened.metadata.num_rows and all(
        _is_empty(opened, group, columns.image) for group in range(opened.num_row_groups)
    ):
        raise UserError(f"{file}: {columns.image} has no bytes of images, paths alone; {_EMBED}")
    wanted = [columns.label, *([columns.path] if columns.path else [])]
    table = opened.read(columns=wanted, use_threads=False)
    labels = row_groups.inner(table.column(columns.label.partition(".")[0])).to_pylist()
    for row, label in enumerate(labels):
        if label is None or label == "" or label == -1:
            raise UserError(f"{file}: row {row}: no label in {columns.label}; leave the row out, or write its class")
        if isinstance(label, int) and label < 0:
            raise UserError(f"{file}: row {row}: {columns.label} is {label}; labels count from 0")
    found = row_groups.inner(table.column(columns.path.partition(".")[0])).to_pylist() if columns.path else []
    complete = all(isinstance(path, str) and path for path in found)
    groups = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
    return _Part(columns, list(map(str, labels)), found if complete else [], groups)


def _is_empty(opened: Any, group: int, column: str) -> bool:
    """Whether a row group says that nothing is in a column."""
    found = row_groups.chunk(opened, group, column)
    return found.statistics is not None and found.statistics.has_null_count and found.statistics.num_values == 0


def _columns(file: str, schema: Any) -> _Columns:
    """Which columns of a file are images, paths and labels. Raises UserError where that would have to be guessed."""
    types = row_groups.library(file, "types")
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
        names = tuple(class_names.checked(names, f"{file}: names of {label}", row_groups.AGAIN))
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
    value = json_text.parse(text.decode("utf-8", "replace"), f"{file}: its metadata for Hugging Face", row_groups.AGAIN)
    try:
        features = value["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, AttributeError):
        return {}
