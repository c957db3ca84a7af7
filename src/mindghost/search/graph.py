"""A graph of neighbours (HNSW), by usearch: it finds most of the nearest of millions without looking at all.

A graph follows from the vectors of an index, and takes long to make; so it is kept in the user's cache folder, under
the index's state and its own sha256, and may be deleted at any time. It never comes from elsewhere: usearch takes the
numbers in a file for places in memory. What it finds are candidates; the index compares their vectors exactly.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import intact, paths, scratch
from ..files.cache import cache_dir
from ..files.shelf import delete_oldest
from .space import Space
from .vectors import blocks

log = logging.getLogger("mindghost")


class _Kind(NamedTuple):
    """How a graph has vectors: their numbers, neighbours of each, candidates looked at for these."""

    numbers: str
    connectivity: int
    expansion: int


# A graph of many as fine as one of few would take hours. docs/search.md has what they take and give.
_FEW, _MANY = _Kind("f16", 32, 128), _Kind("i8", 16, 64)
_MOST_OF_FEW = 100_000  # vectors
_AXES = 256  # at most
_EXPANSION_SEARCH = 512  # candidates
_BATCH = 1_000  # vectors that are added at once
_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})\.graph")
_MOST_GRAPHS = 8  # of this user's indexes; they may be gigabytes each

Progress = Callable[[int], None]


def check_library() -> None:
    """Raise UserError where usearch is missing."""
    _library()


def _library() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise UserError(
            f"--approximate: usearch finds neighbours so ({error}); pip install usearch, or leave the flag out"
        ) from error
    return usearch.index


class Graph:
    """A graph of neighbours in memory.

    Of vectors of length 1, those with the largest inner product are those at the smallest distance. The graph has them
    in a space around their mean: in float16, or many as integers of 8 bits, neighbours are told apart even where all
    vectors point to one side, as those of networks do.

    Args:
        index: of usearch.
        space: of the vectors that it was made of.
        held: what its memory belongs to.
    """

    def __init__(self, index: Any, space: Space, held: Any = None) -> None:
        self._index, self._space, self._held = index, space, held
        of_integers = index.dtype.name.lower() == _MANY.numbers
        self._placed = space.integers if of_integers else space.numbers
        self._index.expansion_add = (_MANY if of_integers else _FEW).expansion

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def for_vectors(cls, vectors: NDArray[Any]) -> Graph:
        """An empty one for vectors like these, (n, dimensions)."""
        kind = _FEW if len(vectors) <= _MOST_OF_FEW else _MANY
        space = Space.around(vectors, _AXES)
        made = _library().Index(
            ndim=space.dimensions, metric="l2sq", dtype=kind.numbers, connectivity=kind.connectivity
        )
        return cls(made, space)

    def add(self, keys: NDArray[Any], vectors: NDArray[Any], progress: Progress = lambda count: None) -> None:
        """Add vectors, (n, dimensions), under keys that it does not have, uint64 (n,)."""
        start = 0
        for block in blocks(vectors):
            for at in range(0, len(block), _BATCH):
                part = self._placed(block[at : at + _BATCH])
                self._index.add(keys[start : start + len(part)], part, threads=len(os.sched_getaffinity(0)))
                start += len(part)
                progress(len(part))

    def suits(self, *parts: NDArray[Any]) -> bool:
        """Whether it may have all these vectors, (n, dimensions) each: others than it was made of may need another."""
        return self._space.suits(*parts)

    def remove(self, keys: NDArray[Any]) -> None:
        """Remove what has these keys."""
        self._index.remove(keys)

    def candidates(self, queries: NDArray[Any], count: int) -> Iterator[NDArray[Any]]:
        """For each query, (q, dimensions) float32, the keys of about `count` vectors that may be its nearest."""
        count = min(count, len(self))
        self._index.expansion_search = max(_EXPANSION_SEARCH, 2 * count)
        for query in queries:
            yield np.asarray(self._index.search(self._placed(query), count).keys) if count else np.empty(0, np.uint64)

    def save(self, state: str) -> None:
        """Keep it for an index's state, 32 hexadecimal digits. Says so where the cache cannot be written."""
        shelf = cache_dir() / "neighbours"
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            with scratch.folder("neighbours", shelf) as folder, scratch.linked(folder) as plain:
                self._index.save(str(plain / "graph"))
                with open(folder / "whole", "wb+") as file:
                    file.write(self._space.encode())
                    with open(folder / "graph", "rb") as made:
                        shutil.copyfileobj(made, file, 1 << 24)
                    file.flush()
                    os.fsync(file.fileno())
                    file.seek(0)
                    digest = intact.digest(file)
                os.replace(folder / "whole", shelf / f"{state}.{digest}.graph")
            _tidy(shelf)
        except (OSError, RuntimeError, RunError, UserError) as error:
            log.warning(f"the graph of neighbours is not kept: {shelf}: {paths.reason(error)}")


def load(state: str, dimensions: int, change: bool = False) -> Graph | None:
    """The graph that is kept for an index's state; None where none is, or it is damaged.

    `change`: it will be changed; else it is mapped, and takes no memory of its own.
    """
    file = next(iter(_of(state)), None)
    if file is None:
        return None
    match = _NAME.fullmatch(file.name)
    assert match is not None  # `_of` gives no others
    try:
        with paths.open_file(file, "delete it") as opened:
            if intact.digest(opened) != match[2]:
                log.warning(f"{file}: damaged; the graph is made again")
                return None
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        with suppress(OSError):
            os.utime(file)
        space = Space.decode(mapped, dimensions)
        restored = _library().Index.restore(memoryview(mapped)[len(space.encode()) :], view=not change)
    except (OSError, ValueError, RuntimeError, UserError) as error:
        log.warning(f"{file}: cannot be used ({paths.reason(error)}); the graph is made again")
        return None
    return None if restored is None else Graph(restored, space, mapped)


def forget(state: str) -> None:
    """Delete the graph of an index's state, if there is one."""
    for file in _of(state):
        with suppress(OSError):
            file.unlink()


def _of(state: str) -> list[Path]:
    shelf = cache_dir() / "neighbours"
    found = [shelf / name for name in paths.names_in(shelf) if (match := _NAME.fullmatch(name)) and match[1] == state]
    return list(filter(paths.is_file, found))


def _tidy(shelf: Path) -> None:
    """Delete the graphs that were not used for longest."""
    delete_oldest((shelf / name for name in paths.names_in(shelf) if _NAME.fullmatch(name)), _MOST_GRAPHS)
