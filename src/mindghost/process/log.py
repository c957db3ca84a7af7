"""The log of a run: on the screen and in a file."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from . import launch, streams
from .display import OneLine

log = logging.getLogger("mindghost")


# For `log.info(line, extra=...)`: what is said twice, so that a run is saved in between.
TO_FILE, TO_SCREEN = {"only": "file"}, {"only": "screen"}


class _ScreenHandler(logging.Handler):
    """Log lines on standard output, above a progress bar if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLine())
        self.addFilter(lambda record: getattr(record, "only", "screen") == "screen")

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stdout)
        # A log file or a pipe gets each line when it is said, not when a buffer is full.
        sys.stdout.flush()


class _FileHandler(logging.FileHandler):
    """The log of a run on disk. A full disk stops the run where it saves, with one line, not where it talks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(OneLine("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self.addFilter(lambda record: getattr(record, "only", "file") == "file")

    def emit(self, record: logging.LogRecord) -> None:
        for line in streams.news():
            goes_on = (
                f"{line}: the run goes on, and this file has what it says; kill {os.getpid()} stops it, with a save"
            )
            super().emit(logging.makeLogRecord({"msg": goes_on}))
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Inside of `with`, log lines go to standard error: for a command whose output is data."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class RunLog:
    """The log of a run: on the screen at once, in a file from the moment that the file may exist.

    Of several ranks, rank 0 logs for all.
    """

    def __init__(self) -> None:
        log.setLevel(logging.INFO if launch.detect().rank == 0 else logging.CRITICAL)
        self._screen = _ScreenHandler()
        # Lines from before the run folder is known to be good wait in memory.
        self._buffer = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        log.propagate = False
        log.addHandler(self._screen)
        log.addHandler(self._buffer)

    def to_file(self, path: Path) -> None:
        """Write what was said so far, and all that follows, to `path`, with the time of each line."""
        file = _FileHandler(path)
        self._buffer.setTarget(file)
        self._buffer.flush()
        log.removeHandler(self._buffer)
        log.addHandler(file)

    def end(self, reason: str) -> None:
        """Write why the run ends to the file alone: the screen hears it from the command."""
        log.removeHandler(self._screen)
        log.info(reason)

    def close(self) -> None:
        """Stop logging."""
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
        log.propagate = True
