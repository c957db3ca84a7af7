"""What a machine has too little of: open files, memory, processes, room. No file that is fine is blamed for it."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import RunError

_SCARCE = {
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system can open no more files; end other programs, or raise its limit (fs.file-max)",
    errno.ENOMEM: "memory ran out; end other programs, or lower batch_size or num_parallel_workers",
    errno.EAGAIN: "no more processes or threads can be started; end others, or raise the limit (ulimit -u; -v: memory)",
}
_SPARE_DESCRIPTORS = 8  # for what is opened now and then
OUT_OF_MEMORY = _SCARCE[errno.ENOMEM]
# Of a full disk, of a quota, of a limit on the size of files; of a disk that fails or takes nothing.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = dict.fromkeys(NO_ROOM, "make room there, or write elsewhere")
_DISK |= dict.fromkeys((errno.EROFS, errno.EIO, errno.ESTALE), "look after that disk, or use another one")
# How Python, the dynamic loader and the C++ of MindSpore and ONNX Runtime say it, in exceptions of other kinds.
_SAID = {
    os.strerror(errno.EMFILE): errno.EMFILE,
    os.strerror(errno.ENFILE): errno.ENFILE,
    os.strerror(errno.ENOMEM): errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
    "std::bad_alloc": errno.ENOMEM,
    "Memory not enough": errno.ENOMEM,
    "Failed to allocate memory": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    os.strerror(errno.EAGAIN): errno.EAGAIN,
}


def lacking(error: BaseException) -> str | None:
    """Which resource ran out and what to do, if an error says so: files, memory, processes."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        return _SCARCE.get(error.errno)
    if isinstance(error, (OSError, ImportError, RuntimeError, SystemError)):
        return next((_SCARCE[number] for said, number in _SAID.items() if said in str(error)), None)
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out."""
    return error is not None and lacking(error) == OUT_OF_MEMORY


def problem(error: BaseException) -> str | None:
    """What to say of an error that no command has met, where it is the machine's: a full disk, too; None for others."""
    named = getattr(error, "filename", None)
    start = f"{os.fsdecode(named)}: " if isinstance(named, (str, bytes, os.PathLike)) else ""
    if scarce := lacking(error):
        return f"{start}{scarce}"
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{start}{error.strerror}; {_DISK[error.errno]}"
    return None


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


def memory() -> int:
    """Bytes of memory that this machine has, or that its container may take; not how many are free."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        # Not every machine has them, and "max" is no number.
        with suppress(OSError, ValueError), open(file, encoding="ascii") as text:
            found.append(int(text.read()))
    return min(found)


def free_memory() -> int:
    """Bytes that this process could take now: of the machine, its container, its own limit (ulimit -v)."""
    found = [memory()]
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as text:
            found.append(max(0, limit - mmap.PAGESIZE * int(text.read().split()[0])))
    return min(found)


def try_threads(count: int) -> None:
    """Raise RuntimeError (see `problem`) where so many threads cannot be started.

    MindSpore, which starts them when it compiles, waits for ever for one that it did not get.
    """
    done = threading.Event()
    threads = []
    try:
        for _ in range(count):
            threads.append(threading.Thread(target=done.wait))
            threads[-1].start()
    finally:
        done.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def free_descriptors() -> int:
    """How many files more this process may have open for long."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, limit - len(os.listdir("/proc/self/fd")) - _SPARE_DESCRIPTORS)
