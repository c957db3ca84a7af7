"""Which of many images are near each other: all pairs, block by block; of those only what holds groups together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csgraph

_BLOCK = 2048  # rows and columns that are compared at once: 16 MB of numbers
_MOST = 1 << 20  # pairs that are kept before all but those that are needed are dropped

Likeness = Callable[[slice, slice], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images that are near each other.

    Attributes:
        first, second: their numbers, int64 (n,), the first below the second.
        distance: float32 (n,), from 0.
        kind: how they were found, int8 (n,): what the numbers mean the caller knows.
    """

    first: NDArray[Any]
    second: NDArray[Any]
    distance: NDArray[Any]
    kind: NDArray[Any]

    @classmethod
    def of(cls, first: NDArray[Any], second: NDArray[Any], distance: NDArray[Any], kind: NDArray[Any]) -> Pairs:
        """Pairs in either order."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        return cls(low.astype(np.int64), high.astype(np.int64), distance.astype(np.float32), kind.astype(np.int8))

    @classmethod
    def joined(cls, parts: list[Pairs]) -> Pairs:
        """Parts, one after the other; one at least."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def __len__(self) -> int:
        return len(self.first)

    def take(self, indices: NDArray[Any]) -> Pairs:
        """Some of them, in the order of `indices`, int or bool."""
        return Pairs(*(column[indices] for column in vars(self).values()))


def near(
    count: int, likeness: Likeness, least: float, progress: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """All pairs of `count` images whose likeness is at least `least`, some at a time.

    Args:
        count: of images.
        likeness: rows and columns -> how alike each two of them are, float32 (rows, columns).
        least: the least likeness.
        progress: called with the number of rows that were compared with all behind them.

    Yields numbers of the first and of the second, the first below the second, and their likeness, all (pairs,).
    """
    for top in range(0, count, _BLOCK):
        rows = slice(top, min(top + _BLOCK, count))
        for left in range(top, count, _BLOCK):
            columns = slice(left, min(left + _BLOCK, count))
            found = likeness(rows, columns)
            first, second = np.nonzero(found >= least)
            scores = found[first, second]
            first, second = first + top, second + left
            # A block on the diagonal has each pair twice, and each image with itself.
            once = first < second
            yield first[once], second[once], scores[once]
        progress(rows.stop - rows.start)


class Forest:
    """Of the pairs that are added, those that hold groups together: of least distance, and without circles.

    A forest of n images has fewer than n pairs, so that 10,000 images that are all alike take no more memory than
    others: what is added is reduced again and again. The forest of two forests is that of all their pairs.
    """

    def __init__(self, count: int) -> None:
        self._count, self._waiting = count, 0
        self._parts: list[Pairs] = []

    def add(self, pairs: Pairs) -> None:
        """Add pairs."""
        if len(pairs):
            self._parts.append(pairs)
            self._waiting += len(pairs)
        if self._waiting > _MOST:
            self._reduce()

    def _reduce(self) -> None:
        if self._parts:
            self._parts = [_spanning(self._count, Pairs.joined(self._parts))]
        self._waiting = 0

    def pairs(self) -> Pairs:
        """The pairs that are left."""
        self._reduce()
        none = np.empty(0, np.int64)
        return self._parts[0] if self._parts else Pairs.of(none, none, none, none)


def _spanning(count: int, pairs: Pairs) -> Pairs:
    """The pairs of a minimum spanning forest; of two with the same images the nearer one, then that of lower kind."""
    keys = pairs.first * count + pairs.second
    order = np.lexsort((pairs.kind, pairs.distance, keys))
    keys = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    pairs, keys = pairs.take(order[new]), keys[new]
    # scipy takes a weight of 0 for no pair at all.
    weights = 1 + pairs.distance.astype(np.float64)
    tree = csgraph.minimum_spanning_tree(coo_matrix((weights, (pairs.first, pairs.second)), (count, count)).tocsr())
    left = tree.tocoo()
    low, high = np.minimum(left.row, left.col).astype(np.int64), np.maximum(left.row, left.col)
    return pairs.take(np.sort(np.searchsorted(keys, low * count + high)))


def groups(count: int, pairs: Pairs) -> list[tuple[NDArray[Any], Pairs]]:
    """The numbers of the images that pairs put into one group, sorted, with these pairs; for each group."""
    if not len(pairs):
        return []
    links = coo_matrix((np.ones(len(pairs)), (pairs.first, pairs.second)), (count, count))
    _, labels = csgraph.connected_components(links, directed=False)
    inside = pairs.take(np.argsort(labels[pairs.first], kind="stable"))
    named, starts = np.unique(labels[inside.first], return_index=True)
    order = np.argsort(labels, kind="stable")
    lows = np.asarray(np.searchsorted(labels[order], named))
    highs = np.asarray(np.searchsorted(labels[order], named, side="right"))
    bounds = zip(lows.tolist(), highs.tolist(), starts.tolist(), [*starts[1:].tolist(), len(inside)], strict=True)
    found = [(order[low:high], inside.take(np.arange(start, stop))) for low, high, start, stop in bounds]
    return sorted(found, key=lambda group: int(group[0][0]))
