"""An index: a file of vectors that is asked for the nearest of them, and changed as a whole.

It is an .npz file as `vector_file` has them, with a key for each vector, which stays when others go. A change is
written beside it and takes its place at once: at any moment the old index is there or the new one.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import intact, json_text, lock, npz, outputs, paths
from ..files.npz import Column
from ..process.display import shown, some
from . import exact, graph, vector_file
from . import vectors as vector_checks
from .graph import Graph
from .vectors import Origin, Vectors

_KIND, _KEYS = "index", "keys"
_AGAIN = "build it again with `mindghost index build`"
_STATE_DIGITS = 32
# Candidates of a graph whose vectors are compared exactly: so many times those that are wanted, and some.
_CANDIDATES, _MORE_CANDIDATES = 4, 20

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Index:
    """An index as its file has it: changes of the file leave it as it is.

    Attributes:
        path: of the file.
        content: the vectors, mapped, and what they are of; no two have one path.
        keys: uint64, (n,), growing: what the graph calls each vector.
        next_key: for the next vector.
        state: 32 hexadecimal digits, others for each content.
        approximate: neighbours are looked for by way of a graph where nobody says.
    """

    path: Path
    content: Vectors
    keys: NDArray[Any]
    next_key: int
    state: str
    approximate: bool

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def open(cls, path: Path) -> Index:
        """The index in a file, all of which is checked. Raises UserError, in one line, where it is none, or damaged."""
        paths.check_file(path, f"give an index; {_AGAIN}")
        arrays, facts = vector_file.read_arrays(path, _AGAIN, (_KEYS,))
        if facts.get("kind") != _KIND:
            raise UserError(f"{path}: not an index; {_AGAIN}")
        content = vector_file.settled(path, arrays, facts, _AGAIN)
        keys, state, next_key = arrays.get(_KEYS), facts.get("state"), facts.get("next_key")
        if keys is None or keys.shape != (len(content),) or keys.dtype != np.uint64 or (keys[1:] <= keys[:-1]).any():
            raise UserError(f"{path}: its keys are not one for each vector, growing; {_AGAIN}")
        if not json_text.is_integer(next_key) or next_key < 0 or (len(keys) and int(keys[-1]) >= next_key):
            raise UserError(f"{path}: its next key is not behind all others; {_AGAIN}")
        if not isinstance(state, str) or len(state) != _STATE_DIGITS or set(state) - set("0123456789abcdef"):
            raise UserError(f"{path}: its state is not {_STATE_DIGITS} hexadecimal digits; {_AGAIN}")
        _check_paths(content.paths, str(path))
        return cls(path, content, keys, next_key, state, facts.get("approximate") is True)

    @property
    def origin(self) -> Origin | None:
        """The network that made the vectors; None where it is not known."""
        return self.content.origin

    def nearest(
        self,
        queries: NDArray[Any],
        count: int = 10,
        approximate: bool | None = None,
        progress: Progress | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The vectors that have the largest inner products with each query, the largest first.

        Args:
            queries: float32, (q, dimensions), of length 1, of the same network.
            count: of neighbours; there are fewer where there are fewer vectors.
            approximate: by way of a graph, which finds most of them; it is made where none is kept. None: as the index
                was built.
            progress: called with the number of vectors that were added to a graph that has to be made.

        Returns:
            Inner products, float32, and rows of `content`, int64, both (q, min(count, n)).

        Raises UserError for queries of other dimensions, or that are not finite, and of an index without vectors.
        """
        if not len(self):
            raise UserError(
                f"{self.path}: has no vectors; add some with `mindghost index add` or `mindghost index sync`"
            )
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        if queries.shape[1] != self.content.dimensions:
            raise UserError(
                f"{self.path}: has vectors of {self.content.dimensions} numbers, the queries have {queries.shape[1]}; "
                "give those of its network"
            )
        if not np.isfinite(queries).all():
            raise UserError(f"{self.path}: a query is not finite (NaN or infinity); give another one")
        wanted = self.approximate if approximate is None else approximate
        if wanted and len(self) > count:
            return self._by_graph(queries, count, progress)
        return exact.nearest(queries, self.content.vectors, count)

    def _by_graph(
        self, queries: NDArray[Any], count: int, progress: Progress | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        found = self.graph(progress).candidates(queries, _CANDIDATES * count + _MORE_CANDIDATES)
        scores, rows = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        for place, (query, keys) in enumerate(zip(queries, found, strict=True)):
            keys = np.sort(keys)
            at = np.clip(np.searchsorted(self.keys, keys), 0, len(self) - 1)
            candidates = at[self.keys[at] == keys]
            if len(candidates) < count:  # of a graph from which many have been removed
                (scores[place],), (rows[place],) = exact.nearest(query[np.newaxis], self.content.vectors, count)
                continue
            (scores[place],), (chosen,) = exact.nearest(query[np.newaxis], self.content.vectors[candidates], count)
            rows[place] = candidates[chosen]
        return scores, rows

    def graph(self, progress: Progress | None = None) -> Graph:
        """The graph of neighbours: the one that is kept, or a new one, which is kept then."""
        graph.check_library()
        found = graph.load(self.state, self.content.dimensions)
        if found is not None and len(found) == len(self):
            return found
        made = Graph.for_vectors(self.content.vectors)
        made.add(self.keys, self.content.vectors, progress or (lambda count: None))
        made.save(self.state)
        return made

    def rows_of(self, names: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
        """The rows of these paths, int64, and the paths that it does not have."""
        place = {path: row for row, path in enumerate(self.content.paths.tolist())}
        rows = [place[name] for name in names if name in place]
        return np.array(rows, np.int64), [name for name in names if name not in place]


@dataclass(frozen=True)
class Changes:
    """What a change did: how many vectors are new, took the place of others, and went."""

    added: int
    replaced: int
    removed: int
    count: int

    def __str__(self) -> str:
        return f"{self.added:,} added, {self.replaced:,} replaced, {self.removed:,} removed; {self.count:,} vectors"


def build(
    path: Path,
    vectors: Vectors,
    approximate: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    name: str = "the vectors",
) -> Index:
    """Write an index of vectors, and open it.

    Args:
        path: of the file.
        vectors: of one network; no two have one path.
        approximate: neighbours are looked for by way of a graph, which is made, and kept.
        overwrite: replace what has the name.
        progress: called with the number of vectors that were added to the graph.
        name: of the vectors, for messages.

    Raises UserError for vectors that are not fit, and a file that is there; RunError where it cannot be written.
    """
    output = outputs.Output(path, "-o", outputs.nothing, overwrite)
    output.check()
    if approximate:
        graph.check_library()
    _check_some(vectors, name)
    with lock.writing(path):
        output.check()
        vector_checks.check(vectors.vectors, name)
        _check_paths(vectors.paths, name)
        empty = _empty(path, vectors, approximate)
        _write(empty, np.empty(0, np.int64), vectors)
        built = Index.open(path)
    if approximate:
        built.graph(progress)
    return built


def add(path: Path, vectors: Vectors, name: str = "the vectors") -> Changes:
    """Add vectors to an index; one whose path it has takes the place of that one's. `name` is for messages.

    Raises UserError for vectors of another network, and where another process writes the index.
    """
    _check_some(vectors, name)
    with lock.writing(path):
        return change(Index.open(path), vectors, name=name)


def remove(path: Path, names: Sequence[str]) -> Changes:
    """Take images out of an index, by their paths: all of them, or none where one is not there.

    A name that is none of them, but stands before others, as that of a folder, stands for all that is below it.

    Raises UserError for a path that it does not have, and where another process writes the index.
    """
    if "" in names:  # such as a shell makes of a variable that is not set
        raise UserError(f"{path}: an empty path; give images or folders that it has")
    with lock.writing(path):
        index = Index.open(path)
        known = index.content.paths.tolist()
        exact = set(names).intersection(known)
        below = {name: name.rstrip("/") + "/" for name in names if name not in exact}
        folders = tuple(below.values())
        gone = {each for each in known if each in exact or each.startswith(folders)}
        missing = [name for name, folder in below.items() if not any(each.startswith(folder) for each in gone)]
        if missing:
            raise UserError(
                f"{path}: {len(missing):,} of the paths are not in it: {some(list(map(shown, missing)))}; nothing was "
                "removed: give paths as they were embedded"
            )
        return change(index, removed=sorted(gone))


def change(
    index: Index, vectors: Vectors | None = None, removed: Sequence[str] = (), name: str = "the vectors"
) -> Changes:
    """Replace the file of an index by one with other vectors. The caller holds its lock (`lock.writing`).

    Args:
        index: as it is in the file.
        vectors: to add; one whose path it has takes the place of that one's.
        removed: paths that go.
        name: of the vectors, for messages.

    Raises UserError for vectors of another network, with other dimensions, or two of one path.
    """
    if vectors is None:
        vectors = vector_checks.none_of(index.content.dimensions, "float32", index.origin, index.content.classes)
    vector_checks.check_same(index.origin, vectors.origin, str(index.path), name)
    if vectors.dimensions != index.content.dimensions:
        raise UserError(
            f"{name}: vectors of {vectors.dimensions} numbers, and those of {index.path} have "
            f"{index.content.dimensions}; {_AGAIN}"
        )
    _check_paths(vectors.paths, name)
    gone, _ = index.rows_of(removed)
    replaced, _ = index.rows_of(vectors.paths.tolist())
    kept = np.setdiff1d(np.arange(len(index)), np.concatenate([gone, replaced]))
    if not len(vectors) and len(kept) == len(index):
        return Changes(0, 0, 0, len(index))
    after = _write(index, kept, vectors)
    _change_graph(index, after, np.setdiff1d(index.keys, index.keys[kept]), vectors.vectors)
    return Changes(len(vectors) - len(replaced), len(replaced), len(gone), len(kept) + len(vectors))


def _change_graph(before: Index, after: _Written, gone: NDArray[Any], added: NDArray[Any]) -> None:
    """Have the graph that is kept follow a change; without one that suits, the next search makes it."""
    if not before.approximate:
        graph.forget(before.state)
        return
    graph.check_library()
    found = graph.load(before.state, before.content.dimensions, change=True)
    if found is not None and len(found) == len(before) and found.suits(before.content.vectors, added):
        if len(gone):
            found.remove(gone)
        found.add(after.keys, added)
        found.save(after.state)
    graph.forget(before.state)


@dataclass(frozen=True)
class _Written:
    """What a file got: its state, and the keys of the vectors that are new in it."""

    state: str
    keys: NDArray[Any]


def _write(index: Index, kept: NDArray[Any], added: Vectors) -> _Written:
    """Write the vectors of an index that are kept, and others behind them."""
    old = index.content
    classes = _joined_classes(old.classes, added.classes)
    # Of the vectors no copy is made here: a part of the right length stands for them.
    columns = {name: getattr(old, name)[kept] for name in ("paths", "labels", "sizes", "times", "digests")}
    rest = replace(old, vectors=old.vectors[: len(kept)], **columns)
    parts = [rest.relabelled(classes), added.relabelled(classes)]
    new_keys = np.arange(index.next_key, index.next_key + len(added), dtype=np.uint64)
    dtype = old.vectors.dtype
    shape = (len(kept) + len(added), old.dimensions)
    state = secrets.token_hex(_STATE_DIGITS // 2)
    facts = {
        **vector_file.record(index.origin, _KIND),
        "count": shape[0],
        "dimensions": shape[1],
        "state": state,
        "next_key": index.next_key + len(added),
        "approximate": index.approximate,
    }
    content = {
        "vectors": Column(shape, dtype, _rows(old.vectors, kept, added.vectors)),
        _KEYS: Column.of(np.concatenate([index.keys[kept], new_keys])),
        **vector_file.columns(parts),
        **vector_file.facts_column(facts),
    }
    intact.write_atomically(index.path, npz.encode(content))
    return _Written(state, new_keys)


def _rows(old: NDArray[Any], kept: NDArray[Any], added: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows of mapped vectors, and others behind them, some at a time."""
    rows = max(1, (1 << 24) // (4 * old.shape[1]))
    for start in range(0, len(kept), rows):
        yield old[kept[start : start + rows]]
    for start in range(0, len(added), rows):
        yield added[start : start + rows]


def _joined_classes(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Names of both, those of the first with their labels."""
    return [*first, *(name for name in second if name not in set(first))]


def _empty(path: Path, like: Vectors, approximate: bool) -> Index:
    """An index of no vectors yet, of the kind of some."""
    none = vector_checks.none_of(like.dimensions, like.vectors.dtype.name, like.origin, like.classes)
    return Index(path, none, np.empty(0, np.uint64), 0, "", approximate)


def _check_some(vectors: Vectors, name: str) -> None:
    if not len(vectors):
        raise UserError(f"{name}: no vectors in it; give some that `mindghost embed` has made")


def _check_paths(names: NDArray[Any], source: str) -> None:
    """Raise UserError where two vectors have one path."""
    called = names.tolist()
    if len(set(called)) < len(called):
        twice = next(name for name, count in Counter(called).items() if count > 1)
        raise UserError(f"{source}: the path {shown(twice)[:200]} is there twice; each image has one vector")
