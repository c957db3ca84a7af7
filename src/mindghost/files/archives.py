"""Archives and packed files of strangers: nothing lands outside of one folder, and nothing grows without bound.

`tarfile` parses the headers here, and does nothing else: its own extraction resolves links and long names, by which
archives have escaped again and again (CVE-2024-12718, CVE-2025-4138, -4330, -4435, -4517: all through its filter for
data). A data set is made of plain files in plain folders. Whatever else an archive holds refuses it, and each file is
opened here: new, below a descriptor of its folder, through no link.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError
from .paths import is_folder, reason

# What `zipfile` raises on bytes that are no archive, or a damaged one: its own error, a RuntimeError for a packing that
# it does not know, and what it does not foresee, such as places before the beginning.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RuntimeError,
    OSError,
    OverflowError,
)

MAX_UNPACKED_BYTES = 8 << 30
MAX_UNPACKED_FILES = 100_000
# What no data set comes near, and every file system takes.
_LONGEST_NAME, _LONGEST_PATH, _DEEPEST = 255, 1024, 16
# A long name or an extended header; `tarfile` would read any length at once.
_LARGEST_HEADER = 1 << 16
# The zeros behind the last member fill up a record.
_MOST_PADDING = 1 << 20

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_REMEDY = "remove it and try again"


def unpack_tar(archive: Path, folder: Path, below: str = "") -> None:
    """Unpack a tar file, as it is or compressed by gzip, into a folder.

    Args:
        archive: the file.
        folder: takes what is in it; made if it is not there. Nobody else may be able to write to it.
        below: name of the one folder that all members must lie in, and that must be there; empty: any.

    Raises:
        UserError: a damaged archive; a member that is no plain file or folder, or whose name is absolute, leads
            upwards, is too long or is there twice; more than MAX_UNPACKED_FILES members or MAX_UNPACKED_BYTES. What
            came before it stays unpacked.
        OSError: `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(archive, "rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            stream = _Forwards(archive, gzip.GzipFile(fileobj=file) if packed else file)
            for member in _members(archive, stream):
                parts = _parts(archive, member, below)
                _unpack(archive, stream, root, member, parts)
            stream.finish()
    finally:
        os.close(root)
    if below and not is_folder(folder / below):
        raise UserError(f"{archive}: holds no folder {below}; {_REMEDY}")


def gunzip(path: Path, content: bytes, most: int) -> bytes:
    """What a gzip file holds, of at most `most` bytes. Raises UserError, which names `path`: more, or damage."""
    found = _Forwards(path, gzip.GzipFile(fileobj=io.BytesIO(content))).take(most + 1)
    if len(found) > most:
        raise UserError(f"{path}: holds more than {most:,} bytes; {_REMEDY}")
    return found


def gunzip_start(path: Path, content: bytes, size: int) -> bytes:
    """The first bytes of what a gzip file holds, fewer where it holds fewer. Raises UserError for damage."""
    return _Forwards(path, gzip.GzipFile(fileobj=io.BytesIO(content))).take(size)


class _Forwards:
    """A file as `tarfile` may read it: forwards, and a header at a time. Raises UserError for all else."""

    def __init__(self, path: Path, file: BinaryIO | gzip.GzipFile) -> None:
        self._path, self._file, self._position = path, file, 0
        self._header = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise UserError(f"{self._path}: a header of {size:,} bytes in it; {_REMEDY}")
        self._header = self.take(size)
        return self._header

    def seek(self, position: int) -> None:
        if position < self._position:
            raise UserError(f"{self._path}: damaged: a member that begins before the one ahead of it; {_REMEDY}")
        while self._position < position and self.take(min(position - self._position, _CHUNK)):
            pass

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        try:
            found = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise UserError(f"{self._path}: cannot be unpacked ({why}); {_REMEDY}") from error
        self._position += len(found)
        return found

    def finish(self) -> None:
        """Read on to the end, where gzip's check of the content stands, over zeros alone.

        `tarfile` takes a header that is none for the end of the archive.
        """
        rest = self.take(_MOST_PADDING + 1)
        if len(rest) > _MOST_PADDING or (self._header + rest).strip(b"\0"):
            raise UserError(f"{self._path}: damaged: its last member is followed by more than zeros; {_REMEDY}")


def _members(archive: Path, stream: _Forwards) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, while they are few and small enough."""
    tar, count, size = None, 0, 0
    while True:
        try:
            if tar is None:
                # To read, it needs no more of a file than `_Forwards` has.
                tar = tarfile.TarFile(fileobj=stream, encoding="utf-8")  # type: ignore[arg-type]
            member = tar.next()
        except UserError:
            raise
        except Exception as error:  # no list of what the parser makes of hostile headers would be complete
            why = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{archive}: cannot be unpacked ({why[:120]}); {_REMEDY}") from error
        if member is None:
            return
        count, size = count + 1, size + member.size
        if count > MAX_UNPACKED_FILES or size > MAX_UNPACKED_BYTES:
            raise UserError(f"{archive}: over {MAX_UNPACKED_FILES:,} files or {MAX_UNPACKED_BYTES:,} bytes in it")
        yield member


def _parts(archive: Path, member: tarfile.TarInfo, below: str) -> list[str]:
    """The parts of a member's name, if all of it is as plain as data are."""

    def refused(why: str) -> UserError:
        return UserError(f"{archive}: {member.name[:80]!r} in it {why}; {_REMEDY}")

    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.sparse is not None:
        raise refused("is no plain file or folder")
    if member.size < 0:
        raise refused(f"claims {member.size:,} bytes")
    if member.name.startswith("/"):
        raise refused("has an absolute name")
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused("leads upwards")
    try:
        lengths = [len(os.fsencode(part)) for part in parts]
    except UnicodeError as error:
        raise refused("has a name that this locale cannot write") from error
    if len(parts) > _DEEPEST or sum(lengths) + len(parts) > _LONGEST_PATH or max(lengths, default=0) > _LONGEST_NAME:
        raise refused("has too long a name")
    if "\0" in member.name or (not parts and not member.isdir()):
        raise refused("has a name that no file can have")
    if below and parts[:1] not in ([below], []):
        raise refused(f"lies outside of the folder {below}")
    return parts


def _unpack(archive: Path, stream: _Forwards, root: int, member: tarfile.TarInfo, parts: list[str]) -> None:
    """Make one file or folder below the descriptor `root`."""
    with contextlib.ExitStack() as descriptors:
        place = root
        try:
            for part in parts if member.isdir() else parts[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=place)
                place = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
                descriptors.callback(os.close, place)
            if member.isdir():
                return
            target = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=place)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{archive}: {member.name[:80]!r} in it is there already; {_REMEDY}") from error
        file = descriptors.enter_context(open(target, "wb"))
        left = member.size
        while left:
            chunk = stream.take(min(left, _CHUNK))
            if not chunk:
                raise UserError(f"{archive}: cannot be unpacked (it ends early); {_REMEDY}")
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        os.fsync(target)
