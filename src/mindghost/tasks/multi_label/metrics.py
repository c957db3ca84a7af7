"""Average precision, F1 and loss of a network that gives images several labels.

Nothing here depends on the order of the samples: of equal outputs none stands before the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...parallel.ranks import ALONE, Ranks
from ..scores import Scores

# From this probability on a label is given, where no evaluation has found a better one.
USUAL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Metrics:
    """Results of one evaluation.

    Attributes:
        mean_average_precision: mean of the labels' average precision, in percent; of the labels that an image has.
        micro_f1: F1 of all answers together, in percent.
        macro_f1: mean of the labels' F1, in percent; of the labels that an image has.
        loss: mean binary cross-entropy of a sample and label, without label smoothing, in nats.
        num_samples: how many samples were counted.
        thresholds: probabilities from which a label is given, for each output: those that the F1 scores are at.
    """

    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    loss: float
    num_samples: int
    thresholds: tuple[float, ...]

    @property
    def score(self) -> float:
        """The number by which evaluations are compared: the mean average precision, in percent."""
        return self.mean_average_precision

    def result(self) -> dict[str, float | int]:
        """All of them but the thresholds by name, as validation prints them."""
        names = ("mean_average_precision", "micro_f1", "macro_f1", "loss", "num_samples")
        return {name: getattr(self, name) for name in names}

    def summary(self) -> str:
        """All of them in one line for people."""
        return (
            f"mAP {self.mean_average_precision:.2f} %, micro F1 {self.micro_f1:.2f} %, macro F1 {self.macro_f1:.2f} %, "
            f"loss {self.loss:.4f}"
        )


@dataclass(frozen=True)
class Outcomes:
    """What a network made of each sample.

    Attributes:
        logits: float32, (samples, classes).
        labels: which labels a sample has, bool, (samples, classes).
        given: thresholds of an earlier evaluation of the network; None: those that are best for these samples.
    """

    logits: NDArray[Any]
    labels: NDArray[Any]
    given: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[Any]) -> Outcomes:
        """The outcomes of some samples, in the order of `indices`."""
        return Outcomes(self.logits[indices], self.labels[indices], self.given)

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """Probabilities from which a label is given, for each output."""
        if self.given is not None:
            return self.given
        return tuple(best_threshold(*column) for column in zip(self.logits.T, self.labels.T, strict=True))

    @cached_property
    def predicted(self) -> NDArray[Any]:
        """Which labels the network gives a sample: bool, (samples, classes)."""
        return probabilities(self.logits) >= np.array(self.thresholds)

    @cached_property
    def losses(self) -> NDArray[Any]:
        """Mean binary cross-entropy of each sample's labels, in nats: float64, (samples,)."""
        logits = self.logits.astype(np.float64)
        # log(1 + exp(-|x|)) and not log(1 + exp(x)), which overflows.
        parts = np.maximum(logits, 0) - logits * self.labels + np.log1p(np.exp(-np.abs(logits)))
        return parts.mean(axis=1)

    @cached_property
    def scores(self) -> Scores:
        """What the answers for each label amount to."""
        return Scores(self.labels.sum(axis=0), self.predicted.sum(axis=0), (self.labels & self.predicted).sum(axis=0))

    @cached_property
    def average_precisions(self) -> NDArray[Any]:
        """The average precision of each label, float (classes,); NaN for one that no sample has."""
        return np.array([average_precision(*column) for column in zip(self.logits.T, self.labels.T, strict=True)])

    def metrics(self) -> Metrics:
        """The numbers that they amount to: the same in any order of the samples, to the last bit.

        Raises ValueError where there is no sample.
        """
        samples, scores = len(self), self.scores
        if not samples:
            raise ValueError("no sample was evaluated")
        answers = int(scores.support.sum() + scores.predicted.sum())
        # Rounded once, so that the order of the samples does not matter.
        total = math.fsum(self.losses) if np.isfinite(self.losses).all() else float(self.losses.sum())
        return Metrics(
            mean_average_precision=100 * scores.mean(self.average_precisions),
            micro_f1=200 * int(scores.correct.sum()) / answers if answers else 0.0,
            macro_f1=100 * scores.mean(scores.f1),
            loss=total / samples,
            num_samples=samples,
            thresholds=self.thresholds,
        )


class Counts:
    """Collects what a network made of each sample, batch by batch."""

    def __init__(self, thresholds: tuple[float, ...] | None = None) -> None:
        self.thresholds = thresholds
        # Of each batch: logits and labels, float32 (2, N, classes).
        self.parts: list[NDArray[Any]] = []

    def add(self, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count one batch: logits and labels, (N, classes) float32 each."""
        self.parts.append(np.stack([logits, labels]).astype(np.float32))

    def outcomes(self, ranks: Ranks = ALONE) -> Outcomes:
        """The outcomes of all ranks' samples, rank after rank. Every rank has to call it."""
        own = self.parts[0].shape[2] if self.parts else 0
        classes = max(int(count) for count in ranks.gather(np.array(own)))
        content = np.concatenate([np.empty((2, 0, classes), np.float32), *self.parts], axis=1).tobytes()
        gathered = [np.frombuffer(part, np.float32).reshape(2, -1, classes) for part in ranks.gather_bytes(content)]
        logits, labels = np.concatenate(gathered, axis=1)
        return Outcomes(logits, labels > 0, self.thresholds)


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Sigmoid, in float64: of (N, classes), the probability of each label."""
    # exp of what is not above 0 does not overflow.
    powers = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1, powers) / (1 + powers)


def average_precision(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean precision over the recalls of a label, as scikit-learn's `average_precision_score`; NaN without an image.

    The sum over all outputs t, from the highest, of the precision of those from t on, times what t adds to the recall.

    Args:
        outputs: float, (samples,); equal ones count as one step. One that is NaN is below all others.
        labels: which samples have the label, bool, (samples,).
    """
    total = int(labels.sum())
    if not total:
        return math.nan
    _, found, correct = _steps(outputs, labels)
    gained = np.diff(correct, prepend=0)
    return math.fsum(gained * correct / found) / total


def best_threshold(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The probability from which giving a label has the highest F1: midway between two logits of the samples.

    Of several such, the highest. `USUAL_THRESHOLD` for a label that no sample has.

    Args:
        logits: float32, (samples,).
        labels: which samples have the label, bool, (samples,).
    """
    if not labels.any():
        return USUAL_THRESHOLD
    values, found, correct = _steps(logits, labels)
    best = int(np.argmax(2 * correct / (found + labels.sum())))
    lowest = float(values[best])
    below = float(values[best + 1]) if best + 1 < len(values) else -math.inf
    if not math.isfinite(lowest):
        return USUAL_THRESHOLD
    # Where the files of a network differ in the last digits of a logit, the middle keeps the answers alike.
    middle = (lowest + below) / 2 if math.isfinite(below) else lowest - 1
    return float(probabilities(np.array(middle)))


def _steps(outputs: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The different outputs, from the highest; how many samples have that or more, and how many of these the label."""
    outputs = np.where(np.isnan(outputs), -np.inf, outputs.astype(np.float64))
    order = np.argsort(-outputs, kind="stable")
    ordered = outputs[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[ends], ends + 1, np.cumsum(labels[order])[ends]
