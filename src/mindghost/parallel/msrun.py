"""What MindSpore's own launcher, msrun, leaves behind where it fails."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import UserError

# Ranks that msrun starts on a machine where `--local_worker_num` does not say how many.
_LOCAL_RANKS = 8


def check_scheduler(ranks: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError in a scheduler that no rank will find.

    Its port may be taken by another run, which the ranks would join. Or msrun has ended without starting a rank on this
    machine: it starts the scheduler first, and fails where `--local_worker_num`, 8 unless it is given, is more than
    `--worker_num`. The scheduler would wait ten minutes, and keep its port from the next try.
    """
    _check_port(environment)
    if ranks >= _LOCAL_RANKS or _is_msrun(os.getppid()):
        return
    port = environment.get("MS_SCHED_PORT", "")
    if any({"MS_ROLE=MS_WORKER", f"MS_SCHED_PORT={port}"} <= variables for variables in _environments()):
        return
    raise UserError(
        f"msrun: it has ended without starting a rank here: with --worker_num {ranks}, give --local_worker_num {ranks} "
        f"as well, which is {_LOCAL_RANKS} otherwise"
    )


def _check_port(environment: Mapping[str, str]) -> None:
    host, port = environment.get("MS_SCHED_HOST", ""), environment.get("MS_SCHED_PORT", "")
    if not port.isascii() or not port.isdecimal():
        return
    try:
        with socket.create_server((host, int(port))):
            pass
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(
                f"msrun: port {port} of {host} is taken, perhaps by a run that is still there; end it, or give another "
                "port with --master_port"
            ) from error


def _is_msrun(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        return any(os.path.basename(word) == b"msrun" for word in words)
    except OSError:
        return False


def _environments() -> Iterator[set[str]]:
    """The variables of each process of this user."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield set(os.fsdecode(file.read_bytes()).split("\0"))
        except OSError:
            continue
