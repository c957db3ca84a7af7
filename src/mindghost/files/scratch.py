"""Temporary folders: each has a living maker, or is removed by the next process that makes one in the same place.

A process that is killed (SIGKILL, the kernel's memory killer, a power cut) removes nothing. So each folder holds a file
that its maker keeps locked, until the folder is gone or the process is, whatever ends it; a folder whose file can be
locked has no maker any more. Only folders with names that are given here, and that belong to this user, are removed.

MindSpore's functions refuse files by their names: `ms.export` takes letters, digits and few signs more, all others what
is UTF-8. What it is given comes from here, whatever users call their folders.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError, UserError
from ..process.resources import NO_ROOM
from .paths import reason

_NAME = re.compile(r"\.?ghostnet-[a-z]+-[a-z0-9_]{8}")
_LOCK = ".in_use"
# A folder without that file is being made, or its maker was killed just then.
_BEING_MADE = 3600  # seconds
# Paths that all of MindSpore's functions take.
_PLAIN = re.compile(r"[0-9A-Za-z@_\-./]+")
# Where to put what MindSpore is given, where TMPDIR has a name that it does not take.
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")

_SHARED_MEMORY = "/dev/shm"

# Places where this process has removed what others have left: once is enough.
_tidied: set[Path] = set()


@contextmanager
def folder(purpose: str, near: Path | None = None) -> Iterator[Path]:
    """A new folder, `ghostnet-<purpose>-XXXXXXXX`, for the time of the `with` block.

    What killed processes have left in the same place is removed first. A process that was forked inside the block
    leaves the folder alone.

    Args:
        purpose: lower-case letters, for who looks at the folder's name.
        near: the folder to make it in, under a hidden name, so that what is made inside can be renamed into place; None
            is the system's folder for temporary files ($TMPDIR), by a path that all of MindSpore's functions take.

    Raises:
        UserError: there is no folder for temporary files.
        RunError: the place takes no folder, or, in the block, no more data: a full disk, a limit on the size of files.
            An error of a library in the block counts as that where the place is found to be full.
    """
    place = near if near is not None else temporary()
    if place not in _tidied:
        _tidied.add(place)
        tidy(place)
    try:
        made, lock = _make(f"{'.' if near is not None else ''}ghostnet-{purpose}-", place)
    except OSError as error:
        raise _unwritable(place, near, reason(error)) from error
    maker = os.getpid()
    try:
        if near is not None:
            yield made
        else:
            with linked(made) as plain:
                yield plain
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _unwritable(place, near, reason(error)) from error
    except (UserError, RunError):
        raise
    except Exception as error:
        # MindSpore's and ONNX Runtime's own words for a file that they could not write say nothing of the disk.
        if (why := _is_full(made)) is None:
            raise
        raise _unwritable(place, near, why) from error
    finally:
        if os.getpid() == maker:
            shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def until_exit(purpose: str, near: Path | None = None) -> Path:
    """A new folder as `folder` makes it, for the life of this process; the next one removes it if this one is killed.

    Raises as `folder`.
    """
    block = folder(purpose, near)
    made = block.__enter__()
    atexit.register(block.__exit__, None, None, None)
    return made


@contextmanager
def folder_for_libraries(purpose: str) -> Iterator[Path]:
    """A folder as `folder` makes it, in which libraries make their temporary files, too, for the time of the block."""
    with folder(purpose) as made:
        before, tempfile.tempdir = tempfile.tempdir, str(made)
        try:
            yield made
        finally:
            tempfile.tempdir = before


def tidy_usual_places() -> None:
    """Remove what killed processes have left where most temporary folders are: for the start of a command."""
    with contextlib.suppress(UserError):
        tidy(temporary())
    tidy(Path(_SHARED_MEMORY))


def tidy(place: Path) -> None:
    """Remove the temporary folders that killed processes of this user have left in a place. Never raises OSError."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_left(Path(entry.path))


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A path by which MindSpore can read a file: its own, or that of a copy, for the time of the `with` block.

    Raises OSError where the file cannot be read, and as `folder`.
    """
    if is_utf_8(path):
        yield path
        return
    with folder("copy") as copies:
        yield Path(shutil.copyfile(path, copies / f"copy{path.suffix}"))


def is_utf_8(path: Path) -> bool:
    """Whether a path is text: MindSpore takes no other, but for reading (see `readable`)."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def temporary() -> Path:
    """The system's folder for temporary files; another one of the system's where its path is no UTF-8.

    Raises UserError where there is none.
    """
    with contextlib.suppress(OSError):
        places = (Path(tempfile.gettempdir()), *map(Path, _PLACES))
        if found := next((place for place in places if is_utf_8(place) and os.access(place, os.W_OK | os.X_OK)), None):
            return found
    raise UserError("TMPDIR: no folder takes temporary files; give one that can be written, with room in it")


@contextmanager
def linked(target: Path) -> Iterator[Path]:
    """A path of plain letters to a file or folder, for the time of the `with` block: its own, or that of a link to it.

    Raises UserError where there is no place for a link, and as `folder`.
    """
    if _PLAIN.fullmatch(str(target)):
        yield target
        return
    place = next((place for place in _PLACES if os.access(place, os.W_OK | os.X_OK)), None)
    if place is None:
        raise UserError(
            f"{target}: a library takes no such name, and none of {', '.join(_PLACES)} takes a link with another one; "
            "use names made of letters, digits and @ _ - ."
        )
    with folder("link", near=Path(place)) as made:
        link = made / f"link{target.suffix if _PLAIN.fullmatch(target.suffix) else ''}"
        link.symlink_to(target.absolute())
        yield link


def _make(prefix: str, place: Path) -> tuple[Path, int | None]:
    """A new folder, and the descriptor of its locked file; None where the file system has no locks."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            made.rmdir()
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            os.close(lock)
            return made, None
        # Another process may have found the file before it was locked.
        if (made / _LOCK).exists():
            return made, lock
        os.close(lock)


def _remove_if_left(left: Path) -> None:
    """Remove a folder whose maker is gone."""
    status = left.lstat()
    if status.st_uid != os.geteuid():
        return
    try:
        lock = os.open(left / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if time.time() - status.st_mtime > _BEING_MADE:
            shutil.rmtree(left, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # First, for a maker that waits for the lock.
        os.unlink(left / _LOCK)
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def _is_full(made: Path) -> str | None:
    """Why a folder takes no file of some size, where that is for want of room."""
    probe = made / ".probe"
    try:
        probe.write_bytes(bytes(1 << 16))
        probe.unlink()
    except OSError as error:
        return reason(error) if error.errno in NO_ROOM else None
    return None


def _unwritable(place: Path, near: Path | None, why: str) -> RunError:
    remedy = "make room there" if near is not None else "make room there, or give another folder by TMPDIR"
    return RunError(f"{place}: temporary files cannot be written ({why}); {remedy}")
