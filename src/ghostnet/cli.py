"""How a command ends: exit status and last line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from .errors import RunError, UserError


def run_command(prog: str, main: Callable[[], None]) -> int:
    """Run `main` and return the exit status: 0, 2 for bad input, 1 for a run that had to stop, 130 for Ctrl-C.

    Bad input and a stopped run print one line on standard error; any other exception passes through with its
    traceback.
    """
    status = 0
    try:
        main()
    except (UserError, RunError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        status = 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        status = 130
    # MindSpore prints an ignored exception for every network that is alive when the interpreter ends.
    gc.collect()
    return status
