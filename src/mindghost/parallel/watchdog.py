"""What a rank knows of the other ranks on its host: whether they still run.

Ranks wait for each other in every step, for as long as it takes: one that was stopped (SIGSTOP), or has left without
an error, would be waited for for ever, and launchers see nothing wrong with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ..process.display import say

_POLL = 1  # seconds
_PATIENCE = 12  # polls, or seconds
_GLANCE = 0.01  # seconds
_LEAVING = "leaving"  # the name of a process that waits for the others to leave with it
_OTHERS_FIRST = 3  # seconds that a lower rank gets to say what is wrong; its end ends the others


def own_process() -> tuple[int, int]:
    """This process's number, and its birth in clock ticks since the machine's start; 0 where nobody knows."""
    return os.getpid(), _stat(os.getpid())[1] or 0


class Neighbours:
    """The other ranks on this host.

    Args:
        own_rank: this process's.
        processes: rank -> `own_process` there, of all ranks on this host. Those that cannot be seen in /proc, as in
            other containers, are left out.
    """

    def __init__(self, own_rank: int, processes: Mapping[int, tuple[int, int]]) -> None:
        self._own_rank = own_rank
        self._others = {
            rank: (process, birth)
            for rank, (process, birth) in processes.items()
            if rank != own_rank and birth and _stat(process)[1] == birth
        }

    def watch(self) -> None:
        """From now on end this process, with one line and status 1, once one of them has been stopped or gone for long.

        Time that this process is stopped itself does not count: a job may be suspended as a whole.
        """
        if self._others:
            threading.Thread(target=self._watch, name="neighbours", daemon=True).start()

    def leave_together(self) -> None:
        """Return when all of them have come here, too, or have left; after a while in any case.

        What a rank has sent last goes out while it runs: whoever left at once would leave the others waiting for it.
        """
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(_LEAVING)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and any(_stays(*other) for other in self._others.values()):
            time.sleep(_GLANCE)

    def _watch(self) -> None:
        polls = dict.fromkeys(self._others, 0)  # one after the other that found the rank in trouble
        while True:
            time.sleep(_POLL)
            troubles = {rank: trouble for rank, other in self._others.items() if (trouble := _trouble(*other))}
            polls = {rank: polls[rank] + 1 if rank in troubles else 0 for rank in polls}
            lasting = [rank for rank in troubles if polls[rank] >= _PATIENCE]
            if lasting:
                time.sleep(_OTHERS_FIRST * sum(rank < self._own_rank for rank in polls if rank not in troubles))
                _end_now(lasting[0], self._others[lasting[0]][0], troubles[lasting[0]])


def _end_now(rank: int, process: int, trouble: str) -> None:
    line = f"stopped because rank {rank} (process {process}) {trouble}; files saved earlier are kept"
    say(line, sys.stderr)
    os._exit(1)


def _trouble(process: int, birth: int) -> str | None:
    """Why nobody should wait for this process; None if it runs."""
    state = _state(process, birth)
    if state is None:
        return "has left the job"
    # "t", in the hands of a debugger, is no trouble.
    return f"has been stopped (SIGSTOP) for {_POLL * _PATIENCE} seconds" if state == "T" else None


def _stays(process: int, birth: int) -> bool:
    """Whether this process is there, and not about to leave."""
    try:
        return _state(process, birth) is not None and Path(f"/proc/{process}/comm").read_text().strip() != _LEAVING
    except OSError:
        return False


def _state(process: int, birth: int) -> str | None:
    """The state of the process that was born then, as in /proc/PID/stat; None once it has ended."""
    state, born = _stat(process)
    return state if born == birth and state not in ("Z", "X") else None


def _stat(process: int) -> tuple[str | None, int | None]:
    """A process's state and the time of its birth, as in /proc/PID/stat; None, None if there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], int(fields[19])
