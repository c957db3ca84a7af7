"""The nearest of all vectors, found by looking at every one: inner products, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vectors import blocks

_QUERIES = 256  # at once
_SCORES = 1 << 14  # of each query that are looked through at once


def nearest(queries: NDArray[Any], vectors: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The vectors with the largest inner products with each query, the largest first; of equal ones the earlier first.

    Args:
        queries: float32, (q, dimensions).
        vectors: float32 or float16, (n, dimensions); a block at a time is looked at, so that they may be mapped.
        count: of neighbours; there are fewer where there are fewer vectors.

    Returns:
        Inner products, float32, and rows of `vectors`, int64, both (q, min(count, n)).
    """
    count = min(count, len(vectors))
    parts = [_nearest(queries[start : start + _QUERIES], vectors, count) for start in range(0, len(queries), _QUERIES)]
    if not parts:
        return np.empty((0, count), np.float32), np.empty((0, count), np.int64)
    scores, rows = zip(*parts, strict=True)
    return np.concatenate(scores), np.concatenate(rows)


def _nearest(queries: NDArray[Any], vectors: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    best_scores = np.empty((len(queries), 0), np.float32)
    best_rows = np.empty((len(queries), 0), np.int64)
    first = 0
    for found in _scores(queries, vectors):
        scores = np.concatenate([best_scores, found], axis=1)
        rows = np.arange(first, first + found.shape[1])
        kept = min(count, scores.shape[1])
        chosen = np.stack([_largest(line, kept) for line in scores])
        known = best_scores.shape[1]
        # The best of earlier blocks come first, in their order, and have lower rows.
        from_block = rows[np.clip(chosen - known, 0, None)]
        if known:
            from_best = np.take_along_axis(best_rows, np.clip(chosen, None, known - 1), axis=1)
            from_block = np.where(chosen < known, from_best, from_block)
        best_scores, best_rows = np.take_along_axis(scores, chosen, axis=1), from_block
        first += found.shape[1]
    return best_scores, best_rows


def _scores(queries: NDArray[Any], vectors: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The inner products of queries with some vectors, and some more."""
    for start in range(0, len(vectors), _SCORES):
        yield np.concatenate([queries @ block.T for block in blocks(vectors[start : start + _SCORES])], axis=1)


def _largest(scores: NDArray[Any], count: int) -> NDArray[Any]:
    """Indices of the largest numbers, the largest first; of equal ones the earlier first."""
    if count == 0:
        return np.empty(0, np.int64)
    if count < len(scores):
        candidates = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]
