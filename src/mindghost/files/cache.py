"""The user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from . import scratch
from .lock import open_lock


def cache_dir() -> Path:
    """The user's cache folder: `$MINDGHOST_HOME` (or `$GHOSTNET_HOME`, its former name), or `~/.cache/mindghost`.

    For a user without a home (no HOME, no line in passwd) it is a folder of their own beside the temporary files.
    """
    if given := os.environ.get("MINDGHOST_HOME") or os.environ.get("GHOSTNET_HOME"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "mindghost"
    except RuntimeError:
        return _homeless_cache()


@functools.cache
def _homeless_cache() -> Path:
    """Any user may have put something under this name: what is not this user's alone is not taken."""
    folder = scratch.temporary() / f"mindghost-of-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return folder
    raise UserError(f"{folder}: is not this user's alone; set HOME, or MINDGHOST_HOME to a folder for the cache")


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keeps other processes out while one makes `target`; the lock ends with the process that holds it."""
    lock = open_lock(target.with_name(f".{target.name}.lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
