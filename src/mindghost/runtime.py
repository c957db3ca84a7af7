"""Device, mode, seed and logging: the only file that asks where it runs."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms

from . import limits_onednn
from .cli import command
from .config import Config
from .errors import UserError
from .files import scratch
from .parallel.cores import die_with_parent
from .parallel.ranks import Ranks, check_launch, start
from .process import launch, resources, streams
from .process.display import OneLine, say

log = logging.getLogger("mindghost")

_HERE = Path(__file__).parent

# That MindSpore starts, beside those of its pipeline.
_THREADS, _THREADS_OF_A_CORE = 8, 3


@dataclass(frozen=True)
class Runtime:
    """Where a command runs, and the one configuration that it runs by.

    Attributes:
        config: the configuration with what the device cannot do replaced, and settled by `with_classes` from the
            moment that the data is known.
        device: "CPU", "Ascend" or "GPU".
        ranks: the processes that share the run.
        threads: that operators may use at once.
        notes: one line for each thing that was replaced.
    """

    config: Config
    device: str
    ranks: Ranks
    threads: int
    notes: list[str]

    def with_classes(self, classes: Sequence[str]) -> Runtime:
        """The same with `num_classes` settled: that of the data where the key is absent.

        Says so where the network has more outputs than the data has classes.
        """
        config = self.config
        if config.num_classes is None:
            return replace(self, config=config.replace(num_classes=len(classes)))
        if len(classes) < config.num_classes:
            log.info(
                f"{config.data_dir}: {len(classes)} classes, fewer than num_classes: {config.num_classes}; "
                "labels follow their sorted names"
            )
        return self


def init(config: Config) -> Runtime:
    """Set up the device, the ranks, graph or PyNative mode and the seed.

    Raises:
        UserError: a device that this machine does not have, `distribute` at odds with how the process was started, or
            this program in a folder that MindSpore cannot name.
        RunError: the ranks did not find each other.
    """
    check_launch(config.distribute)
    if not scratch.is_utf_8(_HERE):
        raise UserError(
            f"{_HERE}: MindSpore compiles no program in a folder whose name is no UTF-8; move it to another one"
        )
    resources.try_threads(_THREADS + _THREADS_OF_A_CORE * len(os.sched_getaffinity(0)))
    device = _device(config.device_target)
    _check_devices(device)
    ms.set_context(mode=ms.GRAPH_MODE if config.mode == 0 else ms.PYNATIVE_MODE)
    if ms.get_context("device_target") != device:
        # Refused once anything has run, so not done without need.
        ms.set_device(device)
    ranks = start(device)
    threads, notes = _threads(ranks)
    if device == "Ascend" and config.mode == 0:
        # The whole graph on the device (GraphEngine), as MindCV runs its recipes; only Ascend has it.
        ms.set_context(jit_config={"jit_level": "O2"})
    ms.set_seed(config.seed)
    random.seed(config.seed)
    config, replaced = _replace_what_is_missing(config, device)
    notes += replaced
    if variable := launch.left_over():
        notes.append(f"{variable} is set, but no launcher started this process: it runs on its own")
    if limits_onednn and device == "CPU":
        notes.append("ONEDNN_MAX_CPU_ISA=AVX2: with AVX-512, oneDNN runs these convolutions 100 times slower")
    return Runtime(config, device, ranks, threads, notes)


def _threads(ranks: Ranks) -> tuple[int, list[str]]:
    """How many threads operators may use, which MindSpore is told, and what there is to say about it.

    As many as there are cores for this rank, or fewer where OMP_NUM_THREADS says so.
    """
    cores = ranks.cores or min(ms.get_context("runtime_num_threads"), len(os.sched_getaffinity(0)))
    # A list has the numbers of nested loops behind the first.
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads, notes = cores, []
    if given.isascii() and given.isdecimal() and int(given) > 0:
        threads = min(cores, int(given))
    elif given:
        notes.append(f"OMP_NUM_THREADS: {given!r} is no number of threads; {cores} are used")
    ms.set_context(runtime_num_threads=threads)
    return threads, notes


def _device(target: str | None) -> str:
    """The device to use: the one that was named, else the fastest that the machine has."""
    if target is None:
        return next(name for name in ("Ascend", "GPU", "CPU") if _is_available(name))
    if not _is_available(target):
        raise UserError(
            f"device_target: MindSpore finds no {target} device on this machine; "
            "leave the key out to use what the machine has, or give CPU"
        )
    return target


def _check_devices(device: str) -> None:
    """Raise UserError where the launcher started more ranks on this machine than it has accelerators."""
    found = launch.detect()
    if device == "CPU" or found.local_ranks is None:
        return
    devices = ms.hal.device_count(device)
    if found.local_ranks > devices:
        raise UserError(
            f"{found.launcher}: it started {found.local_ranks} ranks on {socket.gethostname()}, which has {devices} "
            f"{device} device(s); start as many ranks on a host as it has devices"
        )


def _is_available(device: str) -> bool:
    try:
        return bool(ms.hal.is_available(device))
    except (RuntimeError, ValueError):
        return False


def _replace_what_is_missing(config: Config, device: str) -> tuple[Config, list[str]]:
    """Sink mode and MindSpore's dynamic loss scaling do not exist everywhere: say what takes their place."""
    replaced = []
    # A teacher runs as a graph of its own; a sunk epoch is one graph.
    if config.dataset_sink_mode and (device == "CPU" or config.teacher):
        config = config.replace(dataset_sink_mode=False)
        replaced.append("no sink mode")
    if device == "CPU" and (config.loss_scale_type != "fixed" or config.drop_overflow_update):
        replaced.append("our own finite check in place of MindSpore's dynamic loss scaling")
    reason = "on the CPU" if device == "CPU" else "with a teacher"
    return config, [f"{reason}: {', '.join(replaced)}"] if replaced else []


class StopSignals:
    """Takes SIGTERM, SIGINT (Ctrl-C) and SIGUSR1, for a run that wants to stop between two steps, and SIGHUP.

    Inside of `with`, the signals are blocked in all threads (in those that imports have started, by
    `cli.command.importing`) and a thread of ours waits for them: MindSpore's pipeline installs handlers of its own
    again and again, which would turn Ctrl-C into SIGTERM. Until `defer` is called a signal ends the process at once, as
    it would without us; after that the first one is noted, and the second one ends it.

    A data worker that dies (the kernel's memory killer) counts as SIGCHLD: MindSpore sends SIGTERM to its own process
    then. The batches of that worker never come, so a run that waits for data is ended after a while.

    SIGHUP, which comes when the terminal is closed, changes nothing: the run goes on without it.

    Attributes:
        received: number of the first signal; None before.
        waits_since: time.monotonic() of when the run began to wait for data; None while it does not.
    """

    active = False  # whether this process is inside of `with`

    def __init__(self) -> None:
        self.received: int | None = None
        self.waits_since: float | None = None
        self._deferred = False
        self._done = threading.Event()

    def __enter__(self) -> StopSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, command.RUN_SIGNALS)
        StopSignals.active = True
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        # Wakes the thread, and nothing else.
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
                _end_now(signal.SIGCHLD, _DATA_LOST)
            time.sleep(_GLANCE)

    def _wait(self) -> None:
        while True:
            caught = signal.sigtimedwait(command.RUN_SIGNALS, _SIGNAL_POLL)
            if self._done.is_set():
                return
            if caught is not None and caught.si_signo == signal.SIGHUP:
                streams.hung_up()
                continue
            # CPython returns an empty siginfo after a pause of the process (Ctrl-Z and fg) that outlasts the poll.
            if caught is not None and caught.si_signo in command.STOP_SIGNALS:
                self._note(signal.SIGCHLD if caught.si_pid == os.getpid() else caught.si_signo)
            elif self._waits_in_vain():
                _end_now(self.received or signal.SIGCHLD, _DATA_LOST)

    def _note(self, number: int) -> None:
        if not self._deferred:
            _end_now(number)
        if self.received in (None, signal.SIGCHLD):
            self.received = number
            command.at_end(_leave)
        elif number != signal.SIGCHLD:
            # Where all processes of a run get one signal, the death of the workers is no second one.
            _end_now(number)

    def _waits_in_vain(self) -> bool:
        if self.waits_since is None:
            return False
        timeout = _DATA_TIMEOUT if self.received is not None else _UNNOTICED_TIMEOUT
        return time.monotonic() - self.waits_since > timeout and _a_child_is_dead()


_DATA_LOST = "; the data that the run waits for will not come"
_SIGNAL_POLL = 1  # seconds
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
    command.leave(1 if number == signal.SIGCHLD else 128 + number)


def _leave(status: int) -> None:
    """After a run was stopped, end without MindSpore's clean-up, which may wait for a worker that is dead."""
    if status != 0:
        sys.stdout.flush()
        sys.stderr.flush()
        command.leave(status)


def _a_child_is_dead() -> bool:
    """Whether a process that this one started has ended unnoticed, as a data worker does that was killed."""
    try:
        # Left as it is, for whom it concerns.
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _in_child() -> None:
    """In a data worker that a run has forked: SIGTERM ends it, and so does the end of the run, by SIGKILL too."""
    if StopSignals.active:
        StopSignals.active = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*command.STOP_SIGNALS, signal.SIGCHLD))
        die_with_parent()


os.register_at_fork(after_in_child=_in_child)


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
