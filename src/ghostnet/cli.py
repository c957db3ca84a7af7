"""How a command ends: exit status and last line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from .errors import RunError, Stopped, UserError


def run_command(prog: str, main: Callable[[], None]) -> int:
    """Run `main` and return the exit status: 0, 2 for bad input, 1 for a run that failed, 128 + n for signal n.

    Bad input, a run that fails and one that is stopped print one line on standard error; any other exception passes
    through with its traceback.
    """
    status = 0
    try:
        main()
    except (UserError, RunError) as error:
        # A file's name may hold a line break; the message stays one line.
        print(f"{prog}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        status = 2 if isinstance(error, UserError) else 1
    except Stopped as stop:
        print(f"{prog}: {stop}", file=sys.stderr)
        status = 128 + stop.signal
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        status = 130
    # MindSpore prints an ignored exception for every network that is alive when the interpreter ends.
    gc.collect()
    return status
