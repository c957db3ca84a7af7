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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import intact, paths, scratch
from ..files.cache import cache_dir
from ..files.shelf import delete_oldest
from .vectors import blocks

log = logging.getLogger("mindghost")

# Neighbours of a vector in the graph, and candidates that are looked at for them and in a search; docs/search.md has
# what they give.
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 32, 128, 256
_BATCH = 1_000  # vectors that are added at once
_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})\.usearch")
_SMALLEST_SPREAD = 1e-12  # of vectors that are not all one
_MOST_GRAPHS = 8  # of this user's indexes; they may be gigabytes each
_FORMAT = "f16"
_ALIGNED = 64  # bytes

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

    Of vectors of length 1, those with the largest inner product are those at the smallest distance. Distances stay when
    all are moved and scaled alike. So the graph has vectors around their mean, at about 1 from it: in float16
    neighbours are told apart even where all vectors point to one side, as those of networks do.

    Args:
        index: of usearch.
        mean, scale: of the vectors that it was made of: float32 (dimensions,), and what brings them to about 1.
        held: what its memory belongs to.
    """

    def __init__(self, index: Any, mean: NDArray[Any], scale: float, held: Any = None) -> None:
        self._index, self._mean, self._scale, self._held = index, mean, np.float32(scale), held
        self._index.expansion_add = _EXPANSION_ADD

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def for_vectors(cls, vectors: NDArray[Any]) -> Graph:
        """An empty one for vectors like these, (n, dimensions)."""
        total, squares = np.zeros(vectors.shape[1]), 0.0
        for block in blocks(vectors):
            total += block.sum(axis=0, dtype=np.float64)
            squares += float(np.einsum("ij,ij->", block, block, dtype=np.float64))
        count = max(1, len(vectors))
        mean = (total / count).astype(np.float32)
        spread = squares / count - float(mean.astype(np.float64) @ mean)
        scale = 1 / np.sqrt(spread) if spread > _SMALLEST_SPREAD else 1.0
        made = _library().Index(
            ndim=vectors.shape[1],
            metric="l2sq",
            dtype=_FORMAT,
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
        )
        return cls(made, mean, scale)

    def _moved(self, vectors: NDArray[Any]) -> NDArray[Any]:
        return (vectors - self._mean) * self._scale

    def add(self, keys: NDArray[Any], vectors: NDArray[Any], progress: Progress = lambda count: None) -> None:
        """Add vectors, (n, dimensions), under keys that it does not have, uint64 (n,)."""
        start = 0
        for block in blocks(vectors):
            for at in range(0, len(block), _BATCH):
                part = self._moved(block[at : at + _BATCH])
                self._index.add(keys[start : start + len(part)], part, threads=len(os.sched_getaffinity(0)))
                start += len(part)
                progress(len(part))

    def remove(self, keys: NDArray[Any]) -> None:
        """Remove what has these keys."""
        self._index.remove(keys)

    def candidates(self, queries: NDArray[Any], count: int) -> Iterator[NDArray[Any]]:
        """For each query, (q, dimensions) float32, the keys of about `count` vectors that may be its nearest."""
        count = min(count, len(self))
        self._index.expansion_search = max(_EXPANSION_SEARCH, 2 * count)
        for query in queries:
            yield np.asarray(self._index.search(self._moved(query), count).keys) if count else np.empty(0, np.uint64)

    def save(self, state: str) -> None:
        """Keep it for an index's state, 32 hexadecimal digits. Says so where the cache cannot be written."""
        shelf = cache_dir() / "neighbours"
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            with scratch.folder("neighbours", shelf) as folder, scratch.linked(folder) as plain:
                self._index.save(str(plain / "graph"))
                with open(folder / "whole", "wb+") as file:
                    file.write(_head(self._mean, self._scale))
                    with open(folder / "graph", "rb") as made:
                        shutil.copyfileobj(made, file, 1 << 24)
                    file.flush()
                    os.fsync(file.fileno())
                    file.seek(0)
                    digest = intact.digest(file)
                os.replace(folder / "whole", shelf / f"{state}.{digest}.usearch")
            _tidy(shelf)
        except (OSError, RuntimeError, RunError, UserError) as error:
            log.warning(f"the graph of neighbours is not kept: {shelf}: {paths.reason(error)}")


def _head(mean: NDArray[Any], scale: Any) -> bytes:
    """What stands before usearch's bytes in a file."""
    numbers = np.append(mean, np.float32(scale)).astype("<f4").tobytes()
    return numbers + bytes(-len(numbers) % _ALIGNED)


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
        *mean, scale = np.frombuffer(mapped, "<f4", dimensions + 1)
        content = memoryview(mapped)[len(_head(np.array(mean), scale)) :]
        restored = _library().Index.restore(content, view=not change)
    except (OSError, ValueError, RuntimeError, UserError) as error:
        log.warning(f"{file}: cannot be used ({paths.reason(error)}); the graph is made again")
        return None
    return None if restored is None else Graph(restored, np.array(mean, np.float32), scale, mapped)


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
