"""Confident learning: which labels are probably wrong, by probabilities that did not see them.

Northcutt, Jiang, Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021
(https://arxiv.org/abs/1911.00068). The numbers are those of the library `cleanlab`, but that
an image of several sure classes is of the likeliest of these, as in the paper; there of the likeliest of all.

Everywhere `labels` are int, (n,), and `probabilities` float, (n, classes); each row sums to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A probability that is as large as a mean of such: both were rounded.
_TOLERANCE = 1e-6


def confident_joint(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """How many images of each label (row) surely belong to each class (column): int64, (classes, classes).

    An image surely belongs to a class whose probability is at least the mean that images of that label have; of several
    such classes to the likeliest; of none, it is not counted. A class counts at least one image of its own.
    """
    count = probabilities.shape[1]
    sure = probabilities >= _thresholds(labels, probabilities) - _TOLERANCE
    likeliest = np.where(sure, probabilities, -1).argmax(axis=1)
    counted = sure.any(axis=1)
    cells = labels[counted].astype(np.int64) * count + likeliest[counted]
    joint = np.bincount(cells, minlength=count * count).reshape(count, count)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    return joint


def _thresholds(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """The mean probability of each class over the images of that label, (classes,); infinite where there is none."""
    images = np.bincount(labels, minlength=probabilities.shape[1])
    own = np.bincount(labels, _of_label(labels, probabilities), probabilities.shape[1])
    return np.where(images > 0, own / np.maximum(images, 1), np.inf)


def estimated(joint: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """How many of all images of each label (row) belong to each class (column): int64, (classes, classes).

    The shares are those of the confident joint; each row sums to the images of its label.
    """
    images = np.bincount(labels, minlength=len(joint))
    exact = joint / joint.sum(axis=1, keepdims=True) * images[:, None]
    found = np.floor(exact + _TOLERANCE).astype(np.int64)
    for row, rest in enumerate(images - found.sum(axis=1)):
        # What rounding down has left over goes to the largest fractions; of equal ones to the last, as in cleanlab.
        found[row, np.argsort(exact[row] - found[row], kind="stable")[::-1][:rest]] += 1
    return found


def suspects(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """Which labels are probably wrong, bool (n,): prune by noise rate.

    Of the images of label i, as many as are estimated to belong to class j are suspects: those with the largest margin
    between the probabilities of j and i. One whose own label is the likeliest is none.
    """
    counts = estimated(confident_joint(labels, probabilities), labels)
    found = np.zeros(len(labels), bool)
    for given, true in np.argwhere(counts > 0):
        if given != true:
            own = np.flatnonzero(labels == given)
            margins = probabilities[own, true] - probabilities[own, given]
            found[own[np.argsort(-margins, kind="stable")[: counts[given, true]]]] = True
    return found & (normalized_margin(labels, probabilities) < 0.5)


def probable(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """The likeliest class of each image beside its own label: int64, (n,)."""
    others = np.array(probabilities, np.float64)
    others[np.arange(len(labels)), labels] = -1
    return others.argmax(axis=1)


def self_confidence(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """The probability of each image's label, from 0 to 1: the lower, the less it is to be trusted. (n,)."""
    return _of_label(labels, probabilities)


def normalized_margin(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    """Half of 1 and the label's probability less that of the likeliest other class, from 0 to 1; as above. (n,)."""
    other = _of_label(probable(labels, probabilities), probabilities)
    return (_of_label(labels, probabilities) - other + 1) / 2


def _of_label(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[Any]:
    return probabilities[np.arange(len(labels)), labels].astype(np.float64)


SCORES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "self_confidence": self_confidence,
    "normalized_margin": normalized_margin,
}
