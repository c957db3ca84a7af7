"""Signals: what stops a run, and when."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import endings, streams
from .display import say
from .libc import die_with_parent

# What stops a run between two steps.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


# What else a run takes note of: its terminal was closed.
RUN_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)


@contextmanager
def importing() -> Iterator[None]:
    """For imports of MindSpore: signals wait, threads started inside never take any, nothing is collected.

    Numpy's BLAS starts threads, through which a signal would end a process that has it blocked elsewhere. Collections
    take a sixth of the import's time to find nothing, and would later go through all that was imported again and again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals:
    """Takes SIGTERM, SIGINT (Ctrl-C) and SIGUSR1, for a run that wants to stop between two steps, and SIGHUP.

    Inside of `with`, the signals are blocked in all threads (in those that imports have started, by
    `cli.command.importing`) and a thread of ours waits for them: MindSpore's pipeline installs handlers of its own
    again and again, which would turn Ctrl-C into SIGTERM. Until `defer` is called a signal ends the process at once, as
    it would without us; after that the first one is noted, and the second one ends it, if it is not the same stop.

    A data worker that dies (the kernel's memory killer) counts as SIGCHLD: MindSpore sends SIGTERM to its own process
    then. The batches of that worker never come, so a run that waits for data is ended after a while.

    SIGHUP, which comes when the terminal is closed, changes nothing, unless `hang_up_stops`: a run goes on without it.

    Args:
        hang_up_stops: SIGHUP stops it, too, but where it was ignored at the start, as `nohup` has it.

    Attributes:
        received: number of the first signal; None before.
        save: called, from any thread, before a run ends whose data will not come: saves what it can, and says where the
            run stands; None where nothing was saved.
        waits_since: time.monotonic() of when the run began to wait for data; None while it does not.
    """

    active = False  # whether this process is inside of `with`

    def __init__(self, hang_up_stops: bool = False) -> None:
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._stops = (*STOP_SIGNALS, signal.SIGHUP) if hang_up_stops and not ignored else STOP_SIGNALS
        self.received: int | None = None
        self.save: Callable[[], str | None] | None = None
        self.waits_since: float | None = None
        self._received_at = 0.0
        self._deferred = False
        self._done = threading.Event()

    def __enter__(self) -> StopSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
        StopSignals.active = True
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        # Wakes the thread, and nothing else.
        assert self._thread.ident is not None  # it was started
        signal.pthread_kill(self._thread.ident, signal.SIGUSR1)
        self._thread.join()
        StopSignals.active = False
        # A run that was stopped ends the process next. Until then MindSpore may send SIGTERM for a dead worker again.
        if self.received is None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def defer(self) -> None:
        """From now on the first signal is noted in `received`, and nothing else."""
        self._deferred = True

    def spare_this_thread(self) -> None:
        """From now on SIGCHLD interrupts other threads than the one that calls this, until the `with` block ends.

        MindSpore's handler writes a log line, for which it allocates memory: a thread that was doing just that, as the
        one that trains does all the time, would wait for itself for ever, and all others for Python's lock.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))

    def end_without_worker(self) -> None:
        """End the process if a data worker is dead, after an error of the pipeline, whose cause that is.

        The memory of a worker's first batches comes from the worker itself: batches that it had made may be lost, too.
        """
        deadline = time.monotonic() + _LAST_BREATH
        while time.monotonic() < deadline:
            if self.received == signal.SIGCHLD or _a_child_is_dead():
                self._end_without_data()
            time.sleep(_GLANCE)

    def _end_without_data(self) -> None:
        """End the process for a dead worker, or for the signal that ended them both."""
        saved = self.save() if self.save is not None else None
        _end_now(self.received or signal.SIGCHLD, _DATA_LOST if saved is None else f" {saved}")

    def _wait(self) -> None:
        while True:
            caught = signal.sigtimedwait(RUN_SIGNALS, _SIGNAL_POLL)
            if self._done.is_set():
                return
            if caught is not None and caught.si_signo == signal.SIGHUP:
                streams.hung_up()
                if signal.SIGHUP not in self._stops:
                    continue
            # CPython returns an empty siginfo after a pause of the process (Ctrl-Z and fg) that outlasts the poll.
            if caught is not None and caught.si_signo in self._stops:
                self._note(signal.SIGCHLD if caught.si_pid == os.getpid() else caught.si_signo)
            elif self._waits_in_vain():
                self._end_without_data()

    def _note(self, number: int) -> None:
        if not self._deferred:
            _end_now(number)
        if self.received in (None, signal.SIGCHLD):
            self.received = number
            self._received_at = time.monotonic()
            endings.at_end(_leave)
        elif number != signal.SIGCHLD and time.monotonic() - self._received_at > _ONE_STOP:
            # Where all processes of a run get one signal, the death of the workers is no second one.
            _end_now(number)

    def _waits_in_vain(self) -> bool:
        if self.waits_since is None:
            return False
        timeout = _DATA_TIMEOUT if self.received is not None else _UNNOTICED_TIMEOUT
        return time.monotonic() - self.waits_since > timeout and _a_child_is_dead()


_DATA_LOST = "; the data that the run waits for will not come"
_SIGNAL_POLL = 1  # seconds
_ONE_STOP = 0.5  # seconds: `timeout` sends a signal to a process, and to its group at once
_LAST_BREATH, _GLANCE = 1, 0.05  # seconds that a killed process may take to be dead, and between two looks at it
_DATA_TIMEOUT = 10  # seconds that the workers which are left get for batches that they have begun
_UNNOTICED_TIMEOUT = 30  # the same where MindSpore has not reported a dead worker, which it does within 5 seconds


def stop_reason(number: int) -> str:
    """Why a run stops, where `StopSignals.received` is `number`."""
    if number == signal.SIGCHLD:
        return "stopped because a data worker process died (out of memory?)"
    return f"stopped by {signal.Signals(number).name}"


def _end_now(number: int, why: str = "") -> None:
    """End the process, wherever it is: files are complete at any moment, and its workers die with it."""
    say(f"{stop_reason(number)}{why}", sys.stderr)
    endings.leave(1 if number == signal.SIGCHLD else 128 + number)


def _leave(status: int) -> None:
    """After a run was stopped, end without MindSpore's clean-up, which may wait for a worker that is dead."""
    if status != 0:
        sys.stdout.flush()
        sys.stderr.flush()
        endings.leave(status)


def _a_child_is_dead() -> bool:
    """Whether a process that this one started has ended unnoticed, as a data worker does that was killed."""
    try:
        # Left as it is, for whom it concerns.
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _in_child() -> None:
    """In a data worker that a run has forked: SIGTERM ends it, and so does the end of the run, by SIGKILL too.

    It leaves the run's process group: what `timeout`, a terminal or mpirun send to a group is for the run alone, which
    needs its workers until it has ended its step.
    """
    if StopSignals.active:
        StopSignals.active = False
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOP_SIGNALS, signal.SIGCHLD))
        die_with_parent()


os.register_at_fork(after_in_child=_in_child)
