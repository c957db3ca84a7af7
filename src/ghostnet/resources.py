"""What the machine has too little of: open files, memory. A file that is fine is never blamed for it."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import RunError

_SCARCE = {
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system can open no more files; end other programs, or raise its limit (fs.file-max)",
    errno.ENOMEM: "memory ran out; end other programs, or lower batch_size or num_parallel_workers",
}
_SPARE_DESCRIPTORS = 8  # for what is opened now and then
OUT_OF_MEMORY = _SCARCE[errno.ENOMEM]


def lacking(error: BaseException) -> str | None:
    """Which resource ran out and what to do, if an error says so: of opening files, of memory."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    return _SCARCE.get(error.errno) if isinstance(error, OSError) else None


def check(error: BaseException, name: object) -> None:
    """Raise RunError (`NAME: what ran out; what to do`) for an error that is the machine's; return for others."""
    if scarce := lacking(error):
        raise RunError(f"{name}: {scarce}") from error


@contextmanager
def spent_on(name: object) -> Iterator[None]:
    """Turn the errors of a machine that has too little into RunError (`NAME: what ran out; what to do`)."""
    try:
        yield
    except (MemoryError, OSError) as error:
        check(error, name)
        raise


def has_room(size: int) -> bool:
    """Whether so many bytes of memory can be had now; none of them is touched."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def free_descriptors() -> int:
    """How many files more this process may have open for long."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, limit - len(os.listdir("/proc/self/fd")) - _SPARE_DESCRIPTORS)
