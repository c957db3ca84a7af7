"""What a rank knows of the other ranks on its host: whether they still run.

Ranks wait for each other in every step, for as long as it takes: one that was stopped (SIGSTOP), or has left without
an error, would be waited for for ever, and launchers see nothing wrong with it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

_POLL = 1  # seconds
_PATIENCE = 12  # polls: ranks that end together do so within one
_OTHERS_FIRST = 3  # seconds that a lower rank gets to say what is wrong; its end ends the others


def identity() -> tuple[int, int]:
    """This process's number, and its birth in clock ticks since the machine's start; 0 where nobody knows."""
    return os.getpid(), _stat(os.getpid())[1] or 0


def watch(own_rank: int, processes: Mapping[int, tuple[int, int]]) -> None:
    """From now on end this process, with one line and status 1, once another rank has been stopped or gone for long.

    Time that this process is stopped itself does not count: a job may be suspended as a whole.

    Args:
        own_rank: this process's.
        processes: rank -> `identity` there, of all ranks on this host. Those that cannot be seen in /proc, as in other
            containers, are left out.
    """
    others = {
        rank: (process, birth)
        for rank, (process, birth) in processes.items()
        if rank != own_rank and birth and _stat(process)[1] == birth
    }
    if others:
        thread = threading.Thread(target=_watch, args=(own_rank, others), name="neighbours", daemon=True)
        thread.start()


def _watch(own_rank: int, others: Mapping[int, tuple[int, int]]) -> None:
    polls = dict.fromkeys(others, 0)  # one after the other that found the rank in trouble
    while True:
        time.sleep(_POLL)
        troubles = {rank: trouble for rank, (process, birth) in others.items() if (trouble := _trouble(process, birth))}
        polls = {rank: polls[rank] + 1 if rank in troubles else 0 for rank in others}
        lasting = [rank for rank in troubles if polls[rank] >= _PATIENCE]
        if lasting:
            time.sleep(_OTHERS_FIRST * sum(rank < own_rank for rank in others if rank not in troubles))
            _end_now(lasting[0], others[lasting[0]][0], troubles[lasting[0]])


def _end_now(rank: int, process: int, trouble: str) -> None:
    line = f"stopped because rank {rank} (process {process}) {trouble}; files saved earlier are kept"
    print(line, file=sys.stderr, flush=True)
    os._exit(1)


def _trouble(process: int, birth: int) -> str | None:
    """Why nobody should wait for this process; None if it runs."""
    state, born = _stat(process)
    if born != birth or state in ("Z", "X"):
        return "has left the job"
    # "t", in the hands of a debugger, is no trouble.
    return f"has been stopped (SIGSTOP) for {_POLL * _PATIENCE} seconds" if state == "T" else None


def _stat(process: int) -> tuple[str | None, int | None]:
    """A process's state and the time of its birth, as in /proc/PID/stat; None, None if there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], int(fields[19])
