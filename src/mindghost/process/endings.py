"""How a process ends."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import NoReturn

from .libc import forget_children

endings: list[Callable[[int], None]] = []


def at_end(action: Callable[[int], None]) -> None:
    """Have `action` called with the exit status, after the last line was printed."""
    endings.append(action)


def leave(status: int) -> NoReturn:
    """End at once, after the data workers: they would print a traceback when they miss this process.

    MindSpore does not hear of their end, which it would report as an error, and does not clean up.
    """
    forget_children()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status)
