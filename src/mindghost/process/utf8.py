"""UTF-8 for names and texts, whatever the locale says.

Python reads the names of files by the locale. Under C or Latin-1 the class `dög` would be another one than under UTF-8,
and a run that was trained there could not be validated here. Names are bytes to the system, and UTF-8 to us.
"""

from __future__ import annotations

import os
import sys

_OPTION = ["-X", "utf8"]


def insist() -> None:
    """Start this program again in Python's UTF-8 mode, unless names are UTF-8 already: before it does anything else.

    Output keeps the encoding that the locale, or PYTHONIOENCODING, wants. It is the same process to the system.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.orig_argv[1:3] == _OPTION:
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
    if (stream := sys.stdout or sys.stderr) is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{stream.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, *_OPTION, *sys.orig_argv[1:]])
