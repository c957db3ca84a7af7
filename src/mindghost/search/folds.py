"""Probabilities of images by classifiers that did not see them: logistic regression on vectors, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Weight of the squares, in a mean loss of one image; see `docs/decisions.md`.
PENALTY = 1e-4
_STEPS = 200  # of L-BFGS at most
_BLOCK = 1 << 24  # numbers of logits, or of vectors, that are made at once


def held_out(
    vectors: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    folds: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> NDArray[Any]:
    """The probabilities of images by a classifier that was fitted to the other folds: float32, (n, classes).

    Args:
        vectors: float32 or float16, (n, dimensions).
        labels: int, (n,); each class that there is has at least two images.
        classes: how many there are.
        folds: parts that the images are dealt into, of each class equally many.
        seed: of how they are dealt.
        progress: called with 1 for each fold that was done.
    """
    place = dealt(labels, folds, seed)
    found = np.empty((len(labels), classes), np.float32)
    for fold in np.unique(place):
        held = place == fold
        scale = _Scale(vectors[~held])
        weights = fitted(scale(vectors[~held]), labels[~held], classes)
        places = np.flatnonzero(held)
        for part in _blocks(len(places), max(classes, vectors.shape[1])):
            rows = places[part]
            found[rows] = probabilities(_logits(weights, scale(vectors[rows])))
        progress(1)
    return found


def dealt(labels: NDArray[Any], folds: int, seed: int) -> NDArray[Any]:
    """The fold of each image, int (n,): the images of a class are dealt in turns, in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    found = np.empty(len(labels), np.int64)
    start = 0
    # Each class begins where the one before has ended, so that small ones do not all miss the same folds.
    for count in np.unique(labels, return_counts=True)[1]:
        found[order[start : start + count]] = (start + np.arange(count)) % folds
        start += int(count)
    return found


def fitted(inputs: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """The weights of a multinomial logistic regression: float64, (dimensions + 1, classes), those of the bias last.

    They make the mean cross-entropy of the images, and PENALTY times half the sum of the squares of all but the bias,
    as small as L-BFGS can.

    Args:
        inputs: float32, (n, dimensions).
        labels: int, (n,).
        classes: how many there are.
    """
    from scipy.optimize import minimize

    shape = (inputs.shape[1] + 1, classes)

    def loss(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        weights = flat.reshape(shape)
        total, slope = 0.0, np.zeros(shape)
        for rows in _blocks(len(labels), max(classes, inputs.shape[1])):
            part, at = inputs[rows], (np.arange(len(labels[rows])), labels[rows])
            found = probabilities(_logits(weights, part))
            total -= float(np.log(np.maximum(found[at], np.finfo(np.float32).tiny)).sum(dtype=np.float64))
            found[at] -= 1
            slope[:-1] += part.T @ found
            slope[-1] += found.sum(axis=0, dtype=np.float64)
        kept = weights[:-1]
        slope /= len(labels)
        slope[:-1] += PENALTY * kept
        return total / len(labels) + PENALTY / 2 * float((kept * kept).sum()), slope.ravel()

    start = np.zeros(shape[0] * shape[1])
    found: NDArray[Any] = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return found.reshape(shape)


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """The softmax of logits (n, classes), of their type."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _logits(weights: NDArray[Any], inputs: NDArray[Any]) -> NDArray[Any]:
    return inputs @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)


def _blocks(count: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // width)
    for start in range(0, count, size):
        yield slice(start, start + size)


class _Scale:
    """Brings vectors around 0, to a mean length of 1: those behind a ReLU all point to one side."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        self._mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        squares = float(((vectors - self._mean).astype(np.float32) ** 2).sum(axis=1).mean(dtype=np.float64))
        self._length = np.float32(np.sqrt(squares) or 1)

    def __call__(self, vectors: NDArray[Any]) -> NDArray[Any]:
        return ((vectors - self._mean) / self._length).astype(np.float32)
