"""A graph of neighbours (HNSW), by usearch: it finds most of the nearest of millions without looking at all.

A graph follows from the vectors of an index, and takes long to make; so it is kept in the user's cache folder, under the
index's state and its own sha256, and may be deleted at any time. It never comes from elsewhere: usearch takes the numbers
in a file for places in memory. What it finds are candidates; the index compares their vectors exactly.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import paths, scratch
from ..files.cache import cache_dir
from .vectors import blocks

log = logging.getLogger("mindghost")

# Neighbours of a vector in the graph, and candidates that are looked at for them and in a search; docs/search.md has what
# they give.
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 32, 128, 256
_BATCH = 1_000  # vectors that are added at once
_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})\.usearch")
_MOST_GRAPHS = 8  # of this user's indexes; they may be gigabytes each
# Of the vectors in the graph. Bytes ("i8") take half the time and memory, but tell scores apart by some 0.002 only, and
# neighbours among similar images are nearer to each other than that.
_FORMAT = "f16"

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

    Args:
        index: of usearch.
        held: what its memory belongs to.
    """

    def __init__(self, index: Any, held: Any = None) -> None:
        self._index, self._held = index, held
        self._index.expansion_add = _EXPANSION_ADD

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def of(cls, dimensions: int) -> Graph:
        """An empty one."""
        made = _library().Index(ndim=dimensions, metric="ip", dtype=_FORMAT, connectivity=_CONNECTIVITY)
        return cls(made)

    def add(self, keys: NDArray[Any], vectors: NDArray[Any], progress: Progress = lambda count: None) -> None:
        """Add vectors, (n, dimensions), under keys that it does not have, uint64 (n,)."""
        start = 0
        for block in blocks(vectors):
            for at in range(0, len(block), _BATCH):
                part = block[at : at + _BATCH]
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
        if not count:
            yield from (np.empty(0, np.uint64) for _ in queries)
            return
        found = self._index.search(np.ascontiguousarray(queries, np.float32).reshape(len(queries), -1), count)
        keys = np.asarray(found.keys).reshape(len(queries), -1)
        counts = np.atleast_1d(getattr(found, "counts", keys.shape[1]))
        for line, known in zip(keys, np.broadcast_to(counts, len(queries)), strict=True):
            yield line[:known]

    def save(self, state: str) -> None:
        """Keep it for an index's state, 32 hexadecimal digits. A cache that cannot be written is left alone, and said."""
        shelf = cache_dir() / "neighbours"
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            with scratch.folder("neighbours", shelf) as folder, scratch.linked(folder) as plain:
                file = plain / "graph"
                self._index.save(str(file))
                with open(file, "rb") as made:
                    digest = _digest(made)
                    os.fsync(made.fileno())
                os.replace(folder / "graph", shelf / f"{state}.{digest}.usearch")
            _tidy(shelf)
        except (OSError, RuntimeError, RunError, UserError) as error:
            log.warning(f"the graph of neighbours is not kept: {shelf}: {paths.reason(error)}")


def load(state: str, change: bool = False) -> Graph | None:
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
            if _digest(opened) != match[2]:
                log.warning(f"{file}: damaged; the graph is made again")
                return None
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        with suppress(OSError):
            os.utime(file)
        restored = _library().Index.restore(bytes(mapped) if change else mapped, view=not change)
    except (OSError, ValueError, RuntimeError, UserError) as error:
        log.warning(f"{file}: cannot be used ({paths.reason(error)}); the graph is made again")
        return None
    return None if restored is None else Graph(restored, mapped)


def forget(state: str) -> None:
    """Delete the graph of an index's state, if there is one."""
    for file in _of(state):
        with suppress(OSError):
            file.unlink()


def _of(state: str) -> list[Path]:
    shelf = cache_dir() / "neighbours"
    found = [shelf / name for name in paths.names_in(shelf) if (match := _NAME.fullmatch(name)) and match[1] == state]
    return list(filter(paths.is_file, found))


def _digest(file: Any) -> str:
    if sys.version_info >= (3, 11):
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    while content := file.read(1 << 20):
        digest.update(content)
    return digest.hexdigest()


def _tidy(shelf: Path) -> None:
    """Delete the graphs that were not used for longest."""
    graphs = []
    for name in paths.names_in(shelf):
        if _NAME.fullmatch(name):
            with suppress(OSError):
                graphs.append(((shelf / name).stat().st_mtime, shelf / name))
    for _, file in sorted(graphs)[:-_MOST_GRAPHS]:
        with suppress(OSError):
            file.unlink()
