"""Images inside larger files: read where they lie, by any thread and worker process, through few open files."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from ..files import paths
from ..process import resources

_MOST_OPEN = 128  # descriptors that stay open; of a set of more shards, the others are opened for each image


class Regions:
    """Regions of some files. `remedy` ends the messages of files that cannot be read."""

    def __init__(self, files: Sequence[str], remedy: str) -> None:
        self._files, self._remedy = tuple(files), remedy
        self._open: dict[int, int] = {}

    def read(self, file: int, offset: int, length: int) -> bytes:
        """The bytes of a region: fewer, where the file ends in it. Raises UserError for a file that cannot be read."""
        path = self._files[file]
        try:
            # One descriptor for all threads and worker processes: `pread` moves no position. None is ever closed that
            # another thread may be reading from.
            kept = self._open.get(file)
            if kept is None and len(self._open) < _MOST_OPEN:
                kept = self._open.setdefault(file, descriptor := os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                if kept != descriptor:
                    os.close(descriptor)
            if kept is not None:
                return os.pread(kept, length, offset)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        except (OSError, MemoryError) as error:
            resources.check(error, path)
            raise UserError(f"{path}: cannot be read ({paths.reason(error)}); {self._remedy}") from error

    def stream(self, file: int, offset: int, length: int) -> io.BufferedReader:
        """A region as a file that is read as far as need be."""
        return io.BufferedReader(_Stream(self, file, offset, length))


class _Stream(io.RawIOBase):
    def __init__(self, regions: Regions, file: int, offset: int, length: int) -> None:
        self._regions, self._file, self._offset, self._length = regions, file, offset, length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError("a seek to before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        wanted = max(0, min(len(view), self._length - self._at))
        found = self._regions.read(self._file, self._offset + self._at, wanted) if wanted else b""
        view[: len(found)] = found
        self._at += len(found)
        return len(found)
