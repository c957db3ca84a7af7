"""Work on many images in threads, some images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Images that a thread is handed at once, and such parts that are under way for each thread.
_IMAGES, _AHEAD = 16, 4

_Result = TypeVar("_Result")


def in_parts(count: int, threads: int, work: Callable[[range], _Result]) -> Iterator[_Result]:
    """What `work` makes of the numbers of some images, for all of `count` images in their order.

    Args:
        count: of images.
        threads: that work at once.
        work: called in a thread; what it raises is raised at its place.
    """
    starts = range(0, count, _IMAGES)
    pool = ThreadPoolExecutor(threads)
    try:
        # Not all at once: an error is met at its place, and a million tasks would take memory.
        for first in range(0, len(starts), threads * _AHEAD):
            some = starts[first : first + threads * _AHEAD]
            yield from pool.map(work, [range(start, min(start + _IMAGES, count)) for start in some])
    finally:
        pool.shutdown(cancel_futures=True)
