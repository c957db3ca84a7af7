"""Which launcher started this process, as the environment says. Imports nothing that is slow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UserError

# Variables for the number of ranks, the rank, the ranks on this host: of Open MPI; of MPICH and Intel MPI.
_MPI = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
)
# Programs that start ranks, by the name that the kernel has (its first 15 letters): of Open MPI, MPICH and Intel MPI,
# Slurm, others.
_LAUNCHERS = frozenset(
    (
        *("mpirun", "mpiexec", "orterun", "orted", "prterun", "prun", "prte", "prted"),
        *("mpiexec.hydra", "hydra_pmi_proxy", "hydra_bstrap_pr", "pmi_proxy", "mpispawn"),
        *("srun", "slurmstepd", "jsrun", "aprun", "palsd"),
    )
)


@dataclass(frozen=True)
class Launch:
    """How a process was started.

    Attributes:
        launcher: "mpirun" or "msrun"; None for a process on its own.
        ranks: processes that were started together.
        rank: which of them this is, from 0; with msrun known only if its hosts were numbered, else 0.
        local_ranks: how many of them run on this host; None where the launcher does not say.
        scheduler: whether this is the extra process through which msrun's ranks find each other.
    """

    launcher: str | None = None
    ranks: int = 1
    rank: int = 0
    local_ranks: int | None = None
    scheduler: bool = False


def detect() -> Launch:
    """The launch of this process. Variables of MPI that no launcher above this process has set do not count."""
    found = of_environment(os.environ)
    return Launch() if found.launcher == "mpirun" and not _is_below_a_launcher() else found


def left_over() -> str | None:
    """The variable of MPI by which this process would be one of several, but which it only has from its shell."""
    found = next((size for size, *_ in _MPI if size in os.environ), None)
    return None if found is None or _is_below_a_launcher() else found


def of_environment(environment: Mapping[str, str]) -> Launch:
    """The launch that an environment speaks of. Raises UserError for variables that hold no numbers."""
    for size, number, local_size in _MPI:
        if size in environment:
            local = _number(environment, local_size, 0) if local_size in environment else None
            return Launch("mpirun", _number(environment, size, 1), _number(environment, number, 0), local)
    if "MS_WORKER_NUM" in environment and "MS_ROLE" in environment:
        scheduler = environment["MS_ROLE"] == "MS_SCHED"
        ranks, rank = _number(environment, "MS_WORKER_NUM", 1), _number(environment, "MS_NODE_ID", 0)
        return Launch("msrun", ranks, rank, scheduler=scheduler)
    return Launch()


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(f"{name}: expected a number in this variable, got {text!r}; unset it, or start with a launcher")
    return int(text)


@cache
def _is_below_a_launcher() -> bool:
    """Whether one of the processes above this one starts ranks; True, too, where that cannot be found out.

    Asked once: a launcher that dies later has started this process all the same.
    """
    process = os.getppid()
    while process > 0:
        try:
            name, _, fields = Path(f"/proc/{process}/stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            return True
        if name in _LAUNCHERS:
            return True
        process = int(fields.split()[1])
    return False
