"""How a command ends: exit status and last line."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import launch
from .errors import RunError, Stopped, UserError

# What stops a run between two steps.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Seconds that rank 0 gets to say what other ranks would say as well; its end ends them.
_RANK_0_FIRST = 3

_endings: list[Callable[[int], None]] = []


@contextmanager
def importing() -> Iterator[None]:
    """For imports of MindSpore: stop signals wait, threads started inside never take any, nothing is collected.

    Numpy's BLAS starts threads, through which a signal would end a process that has it blocked elsewhere. Collections
    take a sixth of the import's time to find nothing, and would later go through all that was imported again and again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def at_end(action: Callable[[int], None]) -> None:
    """Have `action` called with the exit status, after the last line was printed."""
    _endings.append(action)


def run_command(prog: str, main: Callable[[], None]) -> int:
    """Run `main` and return the exit status: 0, 2 for bad input, 1 for a run that failed, 128 + n for signal n.

    Bad input, a run that fails and one that is stopped print one line on standard error; a reader of the output that
    leaves (`| head`) ends it in silence; any other exception passes through with its traceback. Of several ranks,
    rank 0 speaks for all; another one does where rank 0 met no error.
    """
    status, failure = 0, None
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _output_is_cut():
            raise
        status = 128 + signal.SIGPIPE
    except (UserError, RunError) as error:
        failure = error
        # A file's name may hold a line break; the message stays one line.
        _say(prog, f"error: {' '.join(str(error).splitlines())}")
        status = 2 if isinstance(error, UserError) else 1
    except Stopped as stop:
        failure = stop
        _say(prog, str(stop))
        status = 128 + stop.signal
    except KeyboardInterrupt:
        _say(prog, "interrupted")
        status = 130
    for action in _endings:
        action(status)
    # Not before: it holds MindSpore's pipeline, whose end waits for its workers, the dead ones too.
    del failure
    # MindSpore prints an ignored exception for every network that is alive when the interpreter ends.
    gc.collect()
    return status


def _output_is_cut() -> bool:
    """Whether nobody reads standard output any more, which then goes nowhere from here on."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _say(prog: str, message: str) -> None:
    rank = launch.detect().rank
    if rank > 0:
        time.sleep(_RANK_0_FIRST)
        prog = f"{prog}: rank {rank}"
    print(f"{prog}: {message}", file=sys.stderr)
