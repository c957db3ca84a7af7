"""Standard output and standard error that may stop taking what is written.

That is what a full disk does, a terminal that was closed, a reader that left, a shell's `>&-`.

Standard error has nobody to complain to: what it does not take is dropped. On standard output a command stops with an
OutputError, once; a training run goes on (`survive`) and says in its log what happened (`news`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import RunError

# A disk that is full may have room again.
_PASSING = (errno.ENOSPC, errno.EDQUOT)
_NAMES = ("standard input", "standard output", "standard error")


class OutputError(RunError):
    """Standard output takes no more.

    Attributes:
        reader_left: whether it is a pipe whose reader has ended, as `head` does, which is nobody's fault.
    """

    def __init__(self, message: str, reader_left: bool) -> None:
        super().__init__(message)
        self.reader_left = reader_left


class _Guarded(io.RawIOBase):
    """A standard stream that raises no OSError: the first one is kept, and what it does not take is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._file = io.FileIO(descriptor, "w", closefd=False)
        self.stops = descriptor == 1  # whether the first error is raised, as OutputError
        self.lost = ""  # what became of it; empty as long as it works
        self._over = False  # whether it is never tried again

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return not self.lost and self._file.isatty()

    def write(self, content: Any) -> int:
        if self._over:
            return len(content)
        try:
            # None: a terminal that another program has made non-blocking is full.
            while (written := self._file.write(content)) is None:
                select.select((), (self,), ())
            return written
        except OSError as error:
            if not self.lost:
                self._lose(error)
            return len(content)

    def _lose(self, error: OSError) -> None:
        """Note the first error, and raise it where it stops the command."""
        why = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        self.lost = f"{_NAMES[self.fileno()]} cannot be written ({why})"
        self._over = self.stops or error.errno not in _PASSING
        _news.append(self.lost)
        if self.stops:
            raise OutputError(self.lost, error.errno == errno.EPIPE) from error


_guards: dict[int, _Guarded] = {}
_news: list[str] = []


def guard() -> None:
    """Have this process's own standard streams guarded; to be called once, before anything else opens files.

    Streams that were closed get their numbers back, which would otherwise go to the next file that is opened.
    Characters that the terminal's encoding lacks are written as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Open the wrong way round, it fails as a closed one does.
            os.open(os.devnull, os.O_WRONLY if descriptor == 0 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = io.StringIO()
    if sys.stdout is sys.__stdout__ and 1 not in _guards:
        sys.stdout = _guarded(1, sys.stdout)
    if sys.stderr is sys.__stderr__ and 2 not in _guards:
        sys.stderr = _guarded(2, sys.stderr)


def _guarded(descriptor: int, stream: TextIO | None) -> TextIO:
    if stream is not None:
        stream.flush()
    raw = _guards[descriptor] = _Guarded(descriptor)
    encoding = stream.encoding if stream is not None else "utf-8"
    by_line = raw.isatty() or descriptor == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)


def survive() -> None:
    """From now on standard output raises nothing, either: what is said is worth less than what goes on."""
    for stream in _guards.values():
        stream.stops = False


@contextlib.contextmanager
def libraries_silenced() -> Iterator[None]:
    """What C++ writes to standard error inside of the `with` block goes nowhere; errors are to come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def hung_up() -> None:
    """Note that the terminal was closed (SIGHUP)."""
    _news.append("the terminal was closed (SIGHUP)")


def news() -> list[str]:
    """What became of the streams since the last call, a line each."""
    found = _news[:]
    del _news[: len(found)]
    return found


def finish() -> None:
    """Write what is still to be written. Raises OutputError as any print does."""
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
