"""This machine: its cores and network addresses, how ranks on it share them, and what its C library does for us."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

_SIOCGIFADDR = 0x8915  # the IPv4 address of an interface, on Linux
_CONNECT_TIMEOUT = 3  # seconds


def has_program(name: str) -> bool:
    """Whether a program of this name is on the PATH."""
    return shutil.which(name) is not None


def identity() -> str:
    """Equal for processes that reach each other at 127.0.0.1, and for no others: name and network namespace."""
    namespace = Path("/proc/self/ns/net")
    return f"{socket.gethostname()} {os.readlink(namespace) if namespace.is_symlink() else ''}"


def addresses() -> list[str]:
    """IPv4 addresses of this machine's interfaces but the loopback's, in the system's order."""
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in found if not address.startswith("127.")]


def reachable(candidates: Iterable[str], port: int) -> dict[str, str]:
    """The addresses that a connection to `port` succeeds at -> this machine's own address on that way."""
    found = {}
    for address in candidates:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=_CONNECT_TIMEOUT) as connection,
        ):
            found[address] = connection.getsockname()[0]
    return found


def share(allowed: Sequence[set[int]], launcher: set[int], place: int) -> set[int]:
    """The cores for one of several ranks on a machine: disjoint, as far as there are enough.

    mpirun binds each of two ranks to a single core, whatever the machine has: where that is less than a rank's share
    of the launcher's cores, the share counts. Any larger binding was chosen by the user, and is shared by those bound
    to the same cores.

    Args:
        allowed: cores that each rank on this machine was bound to.
        launcher: cores that their launcher may use.
        place: the rank's index in `allowed`.
    """
    if all(len(cores) < len(launcher) // len(allowed) for cores in allowed):
        pool, sharers, index = sorted(launcher), len(allowed), place
    else:
        pool = sorted(allowed[place])
        same = [other for other, cores in enumerate(allowed) if cores == allowed[place]]
        sharers, index = len(same), same.index(place)
    if len(pool) < sharers:
        return {pool[index % len(pool)]}
    return set(pool[index * len(pool) // sharers : (index + 1) * len(pool) // sharers])


def take_share(allowed: Sequence[set[int]], launcher: set[int], place: int) -> int:
    """Bind this process, with all threads that it has and will have, to its `share`. Returns its number of cores."""
    cores = share(allowed, launcher, place)
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            os.sched_setaffinity(int(thread), cores)
    return len(cores)
