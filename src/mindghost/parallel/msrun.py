"""What MindSpore's own launcher, msrun, leaves behind where it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import UserError

# Ranks that msrun starts on a machine where `--local_worker_num` does not say how many.
_LOCAL_RANKS = 8


def check_scheduler(ranks: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError in the scheduler of an msrun that has ended without starting a rank on this machine.

    msrun starts the scheduler first. Then it fails where `--local_worker_num`, 8 unless it is given, is more than
    `--worker_num`. The scheduler would wait ten minutes for ranks, and keep its port from the next try.
    """
    if ranks >= _LOCAL_RANKS or _is_msrun(os.getppid()):
        return
    port = environment.get("MS_SCHED_PORT", "")
    if any({"MS_ROLE=MS_WORKER", f"MS_SCHED_PORT={port}"} <= variables for variables in _environments()):
        return
    raise UserError(
        f"msrun: it has ended without starting a rank here: with --worker_num {ranks}, give --local_worker_num {ranks} "
        f"as well, which is {_LOCAL_RANKS} otherwise"
    )


def _is_msrun(process: int) -> bool:
    try:
        return b"msrun" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _environments() -> Iterator[set[str]]:
    """The variables of each process of this user."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield set(os.fsdecode(file.read_bytes()).split("\0"))
        except OSError:
            continue
