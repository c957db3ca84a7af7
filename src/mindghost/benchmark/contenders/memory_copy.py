"""How fast this machine copies memory: the copy of STREAM (McCalpin, 1995), by numpy on all threads.

Arrays of 256 MB are beyond any cache. As STREAM counts them, a copy moves two bytes for each byte of an array; the line
that is read before it is written is not counted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .job import Job, answer, time_steps

ARRAY_BYTES = 1 << 28


def measure(job: Job) -> dict[str, Any]:
    """Times of a copy, and the bytes that it moves."""
    source = np.ones(ARRAY_BYTES // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, job.threads), np.array_split(target, job.threads), strict=True))

    def copy(part: tuple[NDArray[Any], NDArray[Any]]) -> None:
        np.copyto(part[1], part[0])

    with ThreadPoolExecutor(job.threads) as pool:
        result = time_steps(job, lambda: list(pool.map(copy, parts)))
    return result | {"bytes": 2 * ARRAY_BYTES}


if __name__ == "__main__":
    answer(measure)
