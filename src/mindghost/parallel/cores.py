"""This machine: its cores and network addresses, how ranks on it share them, and what its C library does for us."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence


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


def threads_for(cores: int) -> tuple[int, list[str]]:
    """How many threads operators may use on so many cores, and what there is to say about it.

    As many as there are cores, or fewer where OMP_NUM_THREADS says so.
    """
    # A list has the numbers of nested loops behind the first.
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isascii() and given.isdecimal() and int(given) > 0:
        return min(cores, int(given)), []
    return cores, [f"OMP_NUM_THREADS: {given!r} is no number of threads; {cores} are used"] if given else []
