"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
from pathlib import Path

from .errors import UserError

log = logging.getLogger("ghostnet")

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_OWNER = re.compile(r"process \d+ on \S+")
# Lock files that this process holds, by device and inode.
_held: set[tuple[int, int]] = set()


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
            UserError: another run has it.
            OSError: the file cannot be written.
        """
        if self._descriptor is not None:
            return
        if self.file.exists() and _identity(self.file.stat()) in _held:
            raise self._in_use(_owner())
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._identity = descriptor, _identity(os.fstat(descriptor))
        _held.add(self._identity)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._in_use(os.pread(descriptor, 1000, 0).decode(errors="replace")) from error
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(f"{self.file.parent}: its file system has no locks: start no second run there")
            return
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


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
