"""Labels of images -> those that are probably wrong, by what a network knows of the images.

Either a classifier on the vectors of a network, which is fitted to the other folds for each image, or the network's own
probabilities, says what an image is (`folds`); confident learning says whose label is a suspect (`confident`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..errors import UserError
from ..inference.deployment import Deployment
from ..inference.network import divided
from ..process.display import shown, some
from . import confident, folds
from .vectors import UNKNOWN, Vectors

log = logging.getLogger("mindghost")

# Share of recognised images below which most suspects are right, if labels are as good as those of well known sets, of
# which some 3 % are wrong (Northcutt et al., 2021, https://arxiv.org/abs/2103.14749): nearly all images that are taken
# for another class become suspects.
_FEW_RECOGNISED = 0.9


@dataclass(frozen=True, eq=False)
class Judged:
    """Images with their labels, and what was said of them without having seen these.

    Attributes:
        paths: what the images are called, text, (n,).
        labels: int, (n,).
        classes: names in label order.
        probabilities: float, (n, classes).
    """

    paths: NDArray[Any]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    probabilities: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ranking:
    """All images, those first whose labels are to be trusted least. The columns have an entry for each of them.

    Attributes:
        classes: names in label order.
        paths: what the images are called, text.
        given, probable: their labels, and the likeliest other class.
        given_probability, probable_probability: float64.
        margin: the first of them less the second, from -1 to 1.
        suspect: whether the label is probably wrong (`confident.suspects`), bool.
    """

    classes: tuple[str, ...]
    paths: NDArray[Any]
    given: NDArray[Any]
    probable: NDArray[Any]
    given_probability: NDArray[Any]
    probable_probability: NDArray[Any]
    margin: NDArray[Any]
    suspect: NDArray[Any]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def suspects(self) -> NDArray[Any]:
        """The places of the suspects in the ranking, int."""
        return np.flatnonzero(self.suspect)

    @property
    def recognised(self) -> float:
        """The share of the images whose label is the likeliest class, from 0 to 1."""
        return float((self.margin >= 0).mean())

    @property
    def doubt(self) -> str:
        """A line where so few images are recognised that most suspects may be right; empty otherwise."""
        share = float(self.suspect.mean())
        if self.recognised >= _FEW_RECOGNISED or not share:
            return ""
        return (
            f"only {100 * self.recognised:.1f} % of the images were taken for what their label says: unless over "
            f"{50 * share:.1f} % of all labels are wrong, most of these suspects are right; look at the first ones, or "
            "give a network that knows such images better"
        )


def by_folds(
    vectors: Vectors,
    count: int = 5,
    seed: int = 0,
    name: str = "",
    progress: Callable[[int], None] = lambda count: None,
) -> Judged:
    """Judge images by classifiers on their vectors: for each fold of them one that was fitted to the others.

    Args:
        vectors: of any network, with labels. Images without one, and the only ones of their class, are left out.
        count: of folds, 2 at least.
        seed: of how they are dealt.
        name: of where the vectors are from, for messages.
        progress: called with 1 for each fold that was done.

    Raises UserError where fewer than two classes are left.
    """
    labelled = _labelled(vectors, name)
    images = np.bincount(labelled.labels, minlength=len(labelled.classes))
    if (images == 1).any():
        alone = [shown(labelled.classes[label]) for label in np.flatnonzero(images == 1)]
        log.warning(f"left out: the only image of its class, which nothing can be compared with: {some(alone)}")
    labelled = labelled.take(images[labelled.labels] > 1)
    there = np.flatnonzero(images > 1)
    if len(there) < 2:
        raise UserError(
            f"{name}: images of {len(there)} class(es) that have two and more; labels need two such classes"
        )
    labels = np.searchsorted(there, labelled.labels)
    found = folds.held_out(labelled.vectors, labels, len(there), count, seed, progress)
    return Judged(labelled.paths, labels, tuple(labelled.classes[label] for label in there), found)


def check_network(deployed: Deployment) -> tuple[str, ...]:
    """The names of a network's classes, to judge labels by its own probabilities.

    Raises UserError for a network that does not say them, or gives no probability of one class an image.
    """
    if not tasks.of(deployed.config).has_temperature:
        raise UserError(
            f"{deployed.path}: --folds 0: gives no probabilities of one class an image; judge by its vectors "
            "(--folds 5)"
        )
    if deployed.known_classes is None:
        raise UserError(
            f"{deployed.path}: --folds 0: the names of its classes are not known; give --class_names FILE, or judge by "
            "its vectors (--folds 5)"
        )
    return deployed.known_classes


def by_network(logits: Vectors, deployed: Deployment, name: str = "") -> Judged:
    """Judge images by a network's own probabilities, of labels that it was not trained on.

    Args:
        logits: those of the network, in the place of vectors.
        deployed: says its classes, and its temperature.
        name: of where the images are from, for messages.

    Raises UserError as `check_network`, and for labels that are none of its classes.
    """
    known = check_network(deployed)
    if logits.classes and logits.classes != known:
        others = [shown(each) for each in logits.classes if each not in known]
        raise UserError(
            f"{name}: --folds 0: classes that {deployed.path} does not know: {some(others)}; judge by its vectors "
            "(--folds 5)"
        )
    labelled = _labelled(logits, name)
    found = folds.probabilities(divided(labelled.vectors, deployed.temperature or 1))
    return Judged(labelled.paths, labelled.labels, known, found)


def _labelled(vectors: Vectors, name: str) -> Vectors:
    known = vectors.labels != UNKNOWN
    if not known.any():
        raise UserError(f"{name}: its images have no labels (of one class each); give a folder with one for each class")
    if not known.all():
        log.warning(f"left out: {(~known).sum():,} of {len(vectors):,} images, which have no label")
        return vectors.take(known)
    return vectors


def ranked(judged: Judged, score: str = "self_confidence") -> Ranking:
    """All images in the order in which to look at them: by one of `confident.SCORES`, the lowest first."""
    labels, found = judged.labels, judged.probabilities
    order = np.argsort(confident.SCORES[score](labels, found), kind="stable")
    other = confident.probable(labels, found)
    own, others = (confident.self_confidence(each, found)[order] for each in (labels, other))
    return Ranking(
        judged.classes,
        judged.paths[order],
        labels[order],
        other[order],
        own,
        others,
        own - others,
        confident.suspects(labels, found)[order],
    )
