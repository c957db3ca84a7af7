"""Files and folders that are named by users: whether they can be used, and if not, why, in one line.

`pathlib` answers with an exception where a name is too long, or a folder above it may not be entered; opening a FIFO
waits for ever. Whoever is given a path asks here, and nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import RunError, UserError
from ..process import resources

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def reason(error: BaseException) -> str:
    """Why the system refuses, in its words."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; False, too, where that cannot be found out."""
    return _is(path, stat.S_ISREG)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False, too, where that cannot be found out."""
    return _is(path, stat.S_ISDIR)


def exists(path: str | Path) -> bool:
    """Whether there is anything under this name, a link that leads nowhere too; False where it cannot be found out."""
    try:
        os.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def names_in(folder: str | Path) -> list[str]:
    """The names in a folder, sorted; none where that cannot be found out."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []


def real(path: str | Path) -> Path:
    """The path without links, as far as they can be followed: `Path.resolve` raises where one leads to itself."""
    return Path(os.path.realpath(path))


def check_file(path: str | Path, remedy: str, key: str = "") -> None:
    """Raise UserError (`PATH: why; remedy`, after the `key` it was given by) unless there is a regular file."""
    _check(path, remedy, key, "file", stat.S_ISREG, os.R_OK)


def check_folder(path: str | Path, remedy: str, key: str = "") -> None:
    """Raise UserError (`PATH: why; remedy`, after the `key` it was given by) unless there is a folder."""
    _check(path, remedy, key, "folder", stat.S_ISDIR, os.R_OK | os.X_OK)


def _check(path: str | Path, remedy: str, key: str, noun: str, is_one: Callable[[int], bool], access: int) -> None:
    start = f"{key}: {path}" if key else f"{path}"
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{start}: {_missing(path, error, noun)}; {remedy}") from error
    if not is_one(mode):
        raise UserError(f"{start}: {_kind(mode)}, not a {noun}; {remedy}")
    if not _allows(path, access):
        raise UserError(f"{start}: cannot be read ({os.strerror(errno.EACCES)}); {remedy}")


def read(path: str | Path, remedy: str, most: int | None = None) -> bytes:
    """The content of a regular file of at most `most` bytes; anything else is refused without waiting for it.

    Raises UserError (`PATH: why; remedy`), or RunError where the machine has too little of something.
    """
    with open_file(path, remedy) as file:
        try:
            content = file.read() if most is None else file.read(most + 1)
        except (OSError, MemoryError) as error:
            resources.check(error, path)
            raise UserError(f"{path}: cannot be read ({reason(error)}); {remedy}") from error
    if most is not None and len(content) > most:
        raise UserError(f"{path}: larger than {most:,} bytes; {remedy}")
    return content


def open_file(path: str | Path, remedy: str) -> BinaryIO:
    """Open a regular file for reading; anything else is refused without waiting for it.

    Raises UserError (`PATH: why; remedy`), or RunError where the machine has too little of something.
    """
    check_file(path, remedy)
    try:
        # Between the check and here, it may have become a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        resources.check(error, path)
        raise UserError(f"{path}: cannot be read ({reason(error)}); {remedy}") from error
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UserError(f"{path}: {_kind(mode)}, not a file; {remedy}")
    return open(descriptor, "rb")


def make_folder(path: str | Path, key: str) -> None:
    """Make a folder, and those above it. Raises UserError (`KEY: PATH cannot be made (why); give another folder`).

    On a full disk it is a RunError.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise refused(f"{key}: {path} cannot be made ({reason(error)}); give another folder", error) from error


def not_writable(folder: str | Path, key: str, error: OSError) -> UserError | RunError:
    """What to raise where files cannot be made in a folder that a key names; see `refused`."""
    return refused(f"{key}: {folder} cannot be written ({reason(error)}); give another folder", error)


def refused(message: str, error: BaseException) -> UserError | RunError:
    """What to raise where the system does not write: RunError for a full disk, UserError for a path that is wrong."""
    return (RunError if getattr(error, "errno", None) in resources.NO_ROOM else UserError)(message)


def check_output(path: str | Path, key: str = "", remedy: str = "name another file") -> None:
    """Raise UserError unless a file can be made under this name, or replaced: to be asked before the work for it."""
    start = f"{key}: {path}" if key else f"{path}"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        raise UserError(f"{start}: cannot be written ({reason(error)}); {remedy}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{start}: {_kind(mode)}, not a file; {remedy}")
    folder = Path(path).parent
    if not is_folder(folder):
        raise UserError(f"{start}: there is no folder {folder}; make it first, or {remedy}")
    if not _allows(folder, os.W_OK | os.X_OK):
        raise UserError(f"{start}: {folder} takes no files ({_why_not(folder)}); {remedy}")


def check_output_folder(path: str | Path, key: str = "") -> None:
    """Raise UserError unless files can be written to a folder, or it can be made: to be asked before the work."""
    start = f"{key}: {path}" if key else f"{path}"
    remedy = "give another folder"
    place = Path(path)
    while True:
        try:
            mode = os.stat(place).st_mode
            break
        except FileNotFoundError as error:
            if os.path.islink(place):
                raise UserError(f"{start}: {place} is a link that leads nowhere; {remedy}") from error
            place = place.parent
        except (OSError, ValueError) as error:
            raise UserError(f"{start}: cannot be written ({reason(error)}); {remedy}") from error
    if not stat.S_ISDIR(mode):
        raise UserError(f"{start}: {_kind(mode)}, not a folder; {remedy}")
    if not _allows(place, os.W_OK | os.X_OK):
        raise UserError(f"{start}: {place} takes no files ({_why_not(place)}); {remedy}")


def namesake(path: str | Path) -> Path | None:
    """What lies under a name that looks the same, but is made of other Unicode characters (NFC against NFD)."""
    found = Path()
    for part in Path(path).parts:
        if exists(found / part):
            found = found / part
            continue
        try:
            entries = os.listdir(found)
        except OSError:
            return None
        wanted = unicodedata.normalize("NFC", part)
        same = next((entry for entry in entries if unicodedata.normalize("NFC", entry) == wanted), None)
        if same is None:
            return None
        found = found / same
    return None if found == Path(path) else found


def _is(path: str | Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _allows(path: str | Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _why_not(folder: Path) -> str:
    return "a read-only file system" if os.statvfs(folder).f_flag & os.ST_RDONLY else os.strerror(errno.EACCES)


def _kind(mode: int) -> str:
    return next(name for test, name in _KINDS if test(mode))


def _missing(path: str | Path, error: OSError | ValueError, noun: str) -> str:
    if not isinstance(error, FileNotFoundError):
        return f"cannot be read ({reason(error)})"
    if os.path.islink(path):
        return "a link that leads nowhere"
    if namesake(path) is not None:
        return (
            f"no such {noun}, but one whose name looks the same is there, in other Unicode characters (NFC against "
            "NFD): take its name from a listing of the folder"
        )
    return f"no such {noun}"
