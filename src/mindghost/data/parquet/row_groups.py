"""Images in the row groups of parquet files, one by one, read by pyarrow, an extra.

pyarrow reads a row group as a whole. Where it holds images as they are (neither compressed nor in a dictionary, which
is how Hugging Face writes them), it is read so once, to find where each of them lies; from then on each is read alone.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UserError
from ...process import resources
from ..regions import Regions

AGAIN = "replace the file, or download it again"
_KEPT_BYTES = 256 << 20  # of row groups, that each process holds
_MOST_OPEN = 64  # files
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED"}  # encodings: of bytes as they are, and of which rows have any
_NEEDLE = 64  # bytes of an image that it is looked for by, before all of it is compared

_T = TypeVar("_T")


class RowGroups:
    """The images of some files. `columns` has the name of the column in each file."""

    def __init__(self, files: Sequence[str], columns: Sequence[str]) -> None:
        self._files, self._columns = tuple(files), tuple(columns)
        self._regions = Regions(files, AGAIN)
        # Of a row group, where the bytes of each row are, and how many: int64 (rows, 2); None where they are packed.
        self._places: dict[tuple[int, int], NDArray[Any] | None] = {}
        self._begin()

    def _begin(self) -> None:
        # A process that was forked begins anew: another thread may have held the lock.
        self._process, self._lock = os.getpid(), threading.Lock()
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def image(self, file: int, group: int, row: int) -> bytes | None:
        """The bytes of an image by its row in a row group; None where it has none. Raises UserError for damage."""
        if self._process != os.getpid():
            self._begin()
        places = self._places.get((file, group))
        if places is not None:
            offset, length = places[row].tolist()
            return None if length < 0 else self._bytes(file, offset, length)
        with self._lock:
            column = self._kept.pop((file, group), None)
            if column is None:
                column = guarded(self._files[file], lambda: self._read(file, group), f"row group {group}")
            self._kept[file, group] = column
            while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        content: bytes | None = column[row].as_py()
        return content

    def _bytes(self, file: int, offset: int, length: int) -> bytes:
        content = self._regions.read(file, offset, length)
        if len(content) != length:
            raise UserError(f"{self._files[file]}: cut off since it was looked at; {AGAIN}")
        return content

    def _read(self, file: int, group: int) -> Any:
        opened = self._open.pop(file, None) or library(self._files[file]).ParquetFile(
            self._files[file], pre_buffer=False
        )
        self._open[file] = opened
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        column = inner(opened.read_row_group(group, columns=[self._columns[file]], use_threads=False).column(0))
        if (file, group) not in self._places:
            self._places[file, group] = self._located(file, chunk(opened, group, self._columns[file]), column)
        return column

    def _located(self, file: int, chunk: Any, column: Any) -> NDArray[Any] | None:
        """Where the images of a row group are in the file; None where they are not there as they are."""
        if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or not set(chunk.encodings) <= _PLAIN:
            return None
        start = chunk.data_page_offset
        raw = self._regions.read(file, start, chunk.total_compressed_size)
        places = np.full((len(column), 2), -1, np.int64)
        at = 0
        for row, value in enumerate(column):
            content = value.as_py()
            if content is None:
                continue
            # Each is behind its length; between two of them there may be the header of a page.
            needle = len(content).to_bytes(4, "little") + content[:_NEEDLE]
            at = raw.find(needle, at)
            while at >= 0 and raw[at + 4 : at + 4 + len(content)] != content:
                at = raw.find(needle, at + 1)
            if at < 0:
                return None
            places[row] = start + at + 4, len(content)
            at += 4 + len(content)
        return places


def chunk(opened: Any, group: int, column: str) -> Any:
    """What a file says of a column of a row group."""
    found = opened.metadata.row_group(group)
    names = [found.column(number).path_in_schema for number in range(found.num_columns)]
    return found.column(names.index(column))


def inner(column: Any) -> Any:
    """A column, or of a struct of which one field was read, that field."""
    while str(column.type).startswith("struct<"):
        compute = library("", "compute")
        column = compute.struct_field(column, [0])
    return column


def library(file: str, module: str = "parquet") -> Any:
    """A module of pyarrow's, to read a file with. Raises UserError where it is not installed."""
    try:
        import pyarrow.compute
        import pyarrow.parquet
        import pyarrow.types
    except ImportError as error:
        resources.check(error, "pyarrow")
        raise UserError(f"{file}: pyarrow reads it ({error}); pip install 'mindghost[parquet]'") from error
    return getattr(pyarrow, module)


def guarded(file: str, work: Callable[[], _T], what: str) -> _T:
    """The result of reading; all that pyarrow says of a damaged file becomes one line. `what` is being read."""
    try:
        return work()
    except (UserError, RunError):
        raise
    # A damaged file may be anything to pyarrow: ArrowInvalid, OSError, ValueError, a lack of memory for odd sizes.
    except Exception as error:
        resources.check(error, file)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{file}: {what} cannot be read as parquet ({reason}); {AGAIN}") from error
