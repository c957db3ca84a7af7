"""Which launcher started this process, as the environment says. Imports nothing that is slow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# Variables for the number of ranks, the rank, the ranks on this host: of Open MPI; of MPICH and Intel MPI.
_MPI = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
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


def detect(environment: Mapping[str, str] = os.environ) -> Launch:
    """The launch of this process."""
    for size, rank, local_size in _MPI:
        if size in environment:
            local = environment.get(local_size)
            return Launch(
                "mpirun", int(environment[size]), int(environment.get(rank, 0)), None if local is None else int(local)
            )
    if "MS_WORKER_NUM" in environment and "MS_ROLE" in environment:
        scheduler = environment["MS_ROLE"] == "MS_SCHED"
        return Launch(
            "msrun", int(environment["MS_WORKER_NUM"]), int(environment.get("MS_NODE_ID", 0)), scheduler=scheduler
        )
    return Launch()
