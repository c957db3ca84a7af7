"""Lock files: one run at a time in a folder, one writer of a file, and how a lock file is opened."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from . import paths

log = logging.getLogger("mindghost")

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_OWNER = re.compile(r"process \d+ on \S+")
# Lock files that this process holds, by device and inode.
_held: set[tuple[int, int]] = set()


def open_lock(file: Path) -> int:
    """A descriptor of a lock file, which is made if it is missing; what is in it stays.

    Raises OSError where it cannot be opened, or is anything but a file: a link is not followed, a FIFO not waited for.
    """
    if file.is_symlink():
        raise OSError(errno.ELOOP, f"{file.name} is a link, not a lock", str(file))
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{file.name} is not a file", str(file))
    return descriptor


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Keep others out that ask so while a file is read, changed and replaced; the lock ends with its process.

    It lies beside the file, as `.NAME.lock`, and stays: who deleted it could delete the next writer's. Goes on without
    it, and says so, where there are no locks.

    Raises UserError where another process, or thread, is at it, or the lock cannot be made.
    """
    file = target.with_name(f".{target.name}.lock")
    try:
        descriptor = open_lock(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({paths.reason(error)}); {target.name} needs it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise UserError(f"{target}: is being written by another process; wait for it to end") from error
        log.warning(f"{target.parent}: its file system has no locks: let nothing else write {target.name}")
    try:
        yield
    finally:
        os.close(descriptor)


class FolderLock:
    """Keeps other runs out of a folder, from `take` until `release` or the end of the process, whatever ends it.

    It is a POSIX record lock on `<folder>/.lock`, which stays. Record locks are not inherited: MindSpore forks its data
    workers, and those that outlive a killed run would hold any other lock (`flock`) for it. But such a lock knows only
    processes, and ends when the process closes the file, wherever it opened it: hence `_held`, and one descriptor.

    Args:
        folder: has to exist when the lock is taken.
        key: the configuration's key for it, for messages.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.file = folder / ".lock"
        self.key = key
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def take(self) -> None:
        """Take the lock, unless it is taken already. Goes on without it, and says so, where there are no locks.

        Raises:
            UserError: another run has it, or something else than a file has its name.
            OSError: the file cannot be written.
        """
        if self._descriptor is not None:
            return
        self._check_kind()
        if self.file.exists() and _identity(self.file.stat()) in _held:
            raise self._in_use(_owner())
        descriptor = open_lock(self.file)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._identity = descriptor, _identity(os.fstat(descriptor))
        _held.add(self._identity)

    def _check_kind(self) -> None:
        remedy = "a run keeps its lock there; move it away, or give another folder"
        if self.file.is_symlink():
            raise UserError(f"{self.key}: {self.file}: a link, not a file; {remedy}")
        if paths.exists(self.file):
            paths.check_file(self.file, remedy, self.key)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._in_use(_content(descriptor)) from error
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(f"{self.file.parent}: its file system has no locks: start no second run there")
            return
        # What no run wrote is somebody's; a lock needs no content.
        found = _content(descriptor)
        if not found or _OWNER.match(found):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{_owner()}\n".encode(), 0)

    def _in_use(self, content: str) -> UserError:
        owner = _OWNER.match(content)
        who = f" ({owner[0]})" if owner else ""
        return UserError(
            f"{self.key}: {self.file.parent} is in use by another run{who}; wait for it to end, or give another folder"
        )

    def release(self) -> None:
        """Let other runs in. The file stays: who deleted it could delete the next run's."""
        if self._descriptor is not None:
            _held.discard(self._identity)
            os.close(self._descriptor)
            self._descriptor = self._identity = None


def _content(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode(errors="replace")


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
