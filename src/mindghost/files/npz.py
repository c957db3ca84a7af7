"""Arrays as files (.npz), written piece by piece, and read without trust: mapped, not loaded, where they can be.

A file of ours is what `numpy.savez` writes. One of a stranger may be anything: an array that is larger than its file,
one that asks for unpickling, an archive that unpacks to terabytes.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import UserError
from ..process import resources
from . import paths
from .archives import DAMAGED_ZIP
from .table_file import Pieces

npy: Any = npy_format  # it has no types
_LOCAL_HEADER, _LOCAL_START = struct.Struct("<4s22xHH"), b"PK\x03\x04"
_MOST_HEADER = 1 << 16  # bytes of the description of an array
_MOST_ENTRIES = 1_000
_BLOCK = 1 << 24  # bytes that are looked at, or written, at once
_ENCRYPTED = 1
# What numpy's reader raises besides on bytes that are no array.
_DAMAGED = (*DAMAGED_ZIP, KeyError, struct.error)


@dataclass(frozen=True)
class Column:
    """An array to write.

    Attributes:
        shape, dtype: of all of it.
        blocks: its parts along the first axis, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Column:
        """An array that is in memory, or mapped."""
        rows = max(1, _BLOCK // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
        return cls(array.shape, array.dtype, (array[start : start + rows] for start in range(0, len(array), rows)))


def encode(columns: Mapping[str, Column]) -> Iterator[bytes]:
    """The content of a file, piece by piece. Raises ValueError where blocks do not add up to their array."""
    pieces = Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            # As numpy does: equal arrays give equal bytes.
            info = zipfile.ZipInfo(f"{name}.npy")
            rows = 0
            with archive.open(info, "w", force_zip64=True) as entry:
                entry.write(_header(column))
                for block in column.blocks:
                    rows += len(block)
                    entry.write(np.ascontiguousarray(block, column.dtype).tobytes())
                    yield pieces.take()
            if rows != column.shape[0]:
                raise ValueError(f"{name}: {rows} rows for {column.shape[0]}")
    yield pieces.take()


def _header(column: Column) -> bytes:
    text = io.BytesIO()
    description = {"descr": npy.dtype_to_descr(column.dtype), "fortran_order": False, "shape": column.shape}
    npy.write_array_header_1_0(text, description)
    return text.getvalue()


def names_in(path: Path, remedy: str) -> set[str]:
    """The names of the arrays in a file. Raises UserError (`PATH: why; remedy`) where it is no archive of arrays."""
    with paths.open_file(path, remedy) as file:
        return set(_Archive(path, file, remedy).names)


def read(path: Path, wanted: Collection[str], remedy: str) -> dict[str, NDArray[Any]]:
    """Those of the arrays that are wanted and there, compared with the sums in the file.

    An array that is not compressed is mapped: it stays as it was whatever takes the file's place, and takes no memory
    of its own.

    Raises:
        UserError: (`PATH: why; remedy`) not an archive of arrays, damaged, or with one of Python objects.
        RunError: the machine has no memory for a compressed one.
    """
    with paths.open_file(path, remedy) as file:
        archive = _Archive(path, file, remedy)
        return {name: archive.array(name) for name in wanted if name in archive.names}


class _Archive:
    """An open file that may be an archive of arrays."""

    def __init__(self, path: Path, file: BinaryIO, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        try:
            self._archive = zipfile.ZipFile(file)
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except _DAMAGED as error:
            resources.check(error, path)
            raise self._refused("not an .npz file, or a damaged one", error) from error
        entries = self._archive.infolist()
        self.names = {entry.filename.removesuffix(".npy"): entry for entry in entries[:_MOST_ENTRIES]}
        if len(self.names) < len(entries):
            raise self._refused(f"{len(entries):,} entries, some of one name")

    def _refused(self, why: str, error: BaseException | None = None) -> UserError:
        detail = f" ({' '.join(str(error).split())[:120]})" if error is not None and str(error) else ""
        return UserError(f"{self._path}: {why}{detail}; {self._remedy}")

    def array(self, name: str) -> NDArray[Any]:
        """An array by its name."""
        entry = self.names[name]
        try:
            content = self._content(entry)
            found = self._parsed(name, content)
        except UserError:  # which is a ValueError
            raise
        except _DAMAGED as error:
            resources.check(error, self._path)
            raise self._refused(f"its array {name} is damaged", error) from error
        return found

    def _content(self, entry: zipfile.ZipInfo) -> memoryview:
        """The bytes of an entry, compared with its sum. Raises one of `_DAMAGED` where they are others."""
        if entry.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED:
            if entry.file_size > resources.free_memory():
                raise ValueError(f"it unpacks to {entry.file_size:,} bytes, more than there is memory")
            with self._archive.open(entry) as packed:
                return memoryview(packed.read(entry.file_size))
        header = self._mapped[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        start, name, extra = _LOCAL_HEADER.unpack(header)
        begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
        if start != _LOCAL_START or begin + entry.file_size > len(self._mapped):
            raise ValueError("it is not where the file says")
        content = memoryview(self._mapped)[begin : begin + entry.file_size]
        found = 0
        for at in range(0, len(content), _BLOCK):
            found = zlib.crc32(content[at : at + _BLOCK], found)
        if found != entry.CRC:
            raise ValueError("its sum is another one")
        return content

    def _parsed(self, name: str, content: memoryview) -> NDArray[Any]:
        """The array in these bytes, which it shares. Raises UserError or one of `_DAMAGED`."""
        text = io.BytesIO(content[:_MOST_HEADER])
        version = npy.read_magic(text)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise ValueError(f"version {version} of the format")
        try:
            shape, fortran, dtype = read_header(text)
        except Exception as error:  # anything: numpy parses it as Python's text
            raise ValueError(f"its description is none: {type(error).__name__}") from error
        if dtype.hasobject:
            raise self._refused(f"its array {name} holds Python objects, which are never unpickled")
        size = dtype.itemsize * math.prod(shape)
        if min(shape, default=0) < 0 or dtype.itemsize == 0 or text.tell() + size != len(content):
            raise ValueError(f"{len(content) - text.tell():,} bytes for {size:,}")
        flat = np.frombuffer(content, dtype, math.prod(shape), text.tell()) if size else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
