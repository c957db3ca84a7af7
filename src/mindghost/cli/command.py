"""How a command ends: exit status and last line."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from ..errors import RunError, Stopped, UserError
from ..files import scratch
from ..process import launch, resources, streams, utf8
from ..process.display import OneLine, say
from ..process.endings import endings, leave
from ..process.streams import OutputError

# Seconds that rank 0 gets to say what other ranks would say as well; its end ends them.
_RANK_0_FIRST = 3


def run_program(prog: str, main: Callable[[], None]) -> NoReturn:
    """Run `main` as what this process is there for, and end with its exit status (see `run_command`)."""
    utf8.insist()
    sys.exit(run_command(prog, main, of_process=True))


def run_command(prog: str, main: Callable[[], None], of_process: bool = False) -> int:
    """Run `main` and return the exit status: 0, 2 for bad input, 1 for a run that failed, 128 + n for signal n.

    Bad input, a run that fails and one that is stopped print one line on standard error; so does output that cannot be
    written, but a reader of it that leaves (`| head`) ends the command in silence; any other exception passes through
    with its traceback. Of several ranks, rank 0 speaks for all; another one does where rank 0 met no error.

    Args:
        prog: what the command is called in messages.
        main: the command.
        of_process: whether the process ends with the command, and may be ended by it.
    """
    streams.guard()
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine())
    sys.excepthook = _print_traceback
    scratch.tidy_usual_places()
    status = 0
    failure: BaseException | None = None
    scarce: str | None = None
    try:
        _run(main)
    except OutputError as lost:
        status = 128 + signal.SIGPIPE if lost.reader_left else 1
        if not lost.reader_left:
            _say(prog, f"error: {lost}")
    except (UserError, RunError) as error:
        failure = error
        _say(prog, f"error: {error}")
        status = 2 if isinstance(error, UserError) else 1
        scarce = resources.lacking(error.__cause__) if error.__cause__ else None
    except Stopped as stop:
        failure = stop
        _say(prog, str(stop))
        status = 128 + stop.signal
    except KeyboardInterrupt:
        _say(prog, "interrupted")
        status = 130
    except Exception as error:
        # What the machine has run out of, wherever that was: no fault of the code.
        if (scarce := resources.problem(error)) is None:
            raise
        failure = error
        _say(prog, f"error: {scarce}")
        status = 1
    finally:
        # What is left in their buffers is written at the end of the interpreter, where an error has no other way out.
        streams.survive()
    for action in endings:
        action(status)
    if scarce and of_process:
        # For lack of memory, files or threads MindSpore's clean-up would abort, or wait for ever.
        sys.stdout.flush()
        leave(status)
    # Not before: it holds MindSpore's pipeline, whose end waits for its workers, the dead ones too.
    del failure
    # MindSpore prints an ignored exception for every network that is alive when the interpreter ends.
    gc.collect()
    return status


def _run(main: Callable[[], None]) -> None:
    """Run a command to the end of its output, also where it leaves early, as `--help` does."""
    try:
        os.getcwd()
    except OSError as error:  # of which importing MindSpore dies
        raise UserError(f"the current folder cannot be used ({error.strerror}); change to one that is there") from error
    try:
        main()
    except SystemExit:
        streams.finish()
        raise
    streams.finish()


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say of an error that nobody expected what Python does, but nothing that a terminal obeys: it may name files."""
    for line in "".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n"):
        say(line, sys.stderr)


def _say(prog: str, message: str) -> None:
    try:
        rank = launch.detect().rank
    except UserError:  # which is what there is to say
        rank = 0
    if rank > 0:
        time.sleep(_RANK_0_FIRST)
        prog = f"{prog}: rank {rank}"
    say(f"{prog}: {message}", sys.stderr)
