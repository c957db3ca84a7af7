"""A program run to its end: the time that it takes, and the most memory that it and its children hold."""

import contextlib
import os
import resource
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import BinaryIO

from mindghost.errors import RunError, Stopped
from mindghost.files import paths
from mindghost.process.libc import die_with_parent

# Seconds between two looks at the processes: each takes milliseconds for a gigabyte.
GLANCE = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")
_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Cost:
    """What programs took, one after the other.

    Attributes:
        wall_seconds: from start to end.
        cpu_seconds: of all their processes, on all cores.
        other_cpu_seconds: of whatever else ran on the machine meanwhile.
        peak_memory_mb: the largest sum over a program's processes of what each holds, in 10^6 bytes, looked at
            every two seconds; of memory that several share, each has its part (PSS).
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    other_cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.other_cpu_seconds + other.other_cpu_seconds,
            max(self.peak_memory_mb, other.peak_memory_mb),
        )


def run(command: Sequence[str], log: Path) -> tuple[int, Cost, Stopped | None]:
    """Run a program; what it says is appended to the file `log`.

    SIGTERM and Ctrl-C are passed on to it, once, and it is waited for. It is killed if this process is.

    Returns its exit status (of a signal: minus the number), what it took, and what to raise if it was stopped so.
    Raises RunError where it cannot be started.
    """
    before, busy_before, start = _children_seconds(), _busy_seconds(), monotonic()
    with open(log, "ab") as said:
        process = _started(command, said)
        with _passed_on(process) as stops:
            peak, seen = _watch(process)
    cpu = max(_children_seconds() - before, seen)
    other = max(0.0, _busy_seconds() - busy_before - cpu)
    stopped = Stopped(stops[0], "stopped; the same command goes on") if stops else None
    return process.returncode, Cost(monotonic() - start, cpu, other, peak / 1e6), stopped


def _started(command: Sequence[str], said: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: Ctrl-C comes to this process alone, and its processes are known by it.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise RunError(f"{command[0]}: cannot be started ({paths.reason(error)})") from error


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Inside of `with`, signals that stop programs go to `process`; their numbers are in the list."""
    stops: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        # The trainer would end at the second one, and leave its state as it was an epoch before.
        if not stops:
            process.send_signal(signal.SIGTERM)
        stops.append(number)

    earlier = [signal.signal(number, pass_on) for number in _STOPS]
    try:
        yield stops
    finally:
        for number, handler in zip(_STOPS, earlier, strict=True):
            signal.signal(number, handler)


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for a program. Returns the most memory of its session, in bytes, and the CPU seconds that were seen."""
    peak, seconds = 0, {}
    # Not `process.wait(GLANCE)`, which looks twenty times a second.
    end = os.pidfd_open(process.pid)
    try:
        while process.poll() is None:
            memory = 0
            for member, birth, spent in _session(process.pid):
                # A process that nobody waits for is in no sum of the system's.
                seconds[member, birth] = spent
                memory += _memory(member)
            peak = max(peak, memory)
            select.select([end], [], [], GLANCE)
    finally:
        os.close(end)
    return peak, sum(seconds.values())


def _session(leader: int) -> Iterator[tuple[int, int, float]]:
    """The processes of a session: number, time of birth, and CPU seconds without children's."""
    for name in paths.names_in("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Fields from the third on; the second is a name that may hold anything. See proc(5).
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(") ")[2].split()
                if int(fields[3]) == leader:
                    yield int(name), int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(process: int) -> int:
    """Bytes that a process holds: what it shares is divided among those that do; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _children_seconds() -> float:
    """CPU seconds of the children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _busy_seconds() -> float:
    """CPU seconds of all processes since the machine was started; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Idle and waiting for disks are left out; what other machines on the same host took ("steal") is not.
        user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return (user + nice + system + sum(others)) / _TICKS
    return 0.0
