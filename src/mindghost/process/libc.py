"""What Python leaves to the C library: children, and memory that is given back."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, by any means (Linux; elsewhere nothing happens)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forget_children() -> None:
    """From now on no handler of this process is called when its children end (Linux; elsewhere nothing happens).

    From any thread: `signal.signal` is for the main one alone.
    """
    if _libc is not None:
        _libc.signal(signal.SIGCHLD, ctypes.c_void_p(signal.SIG_DFL))


def give_back_memory() -> None:
    """Give back to the system what this process has freed (glibc, which keeps it for later; elsewhere nothing happens).

    Takes milliseconds.
    """
    if _libc is not None and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
