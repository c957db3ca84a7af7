"""Accuracy and loss of a classifier: counts over every sample once, divided once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...parallel.ranks import ALONE, Ranks
from .calibration import Calibration, calibration


@dataclass(frozen=True)
class Metrics:
    """Results of one evaluation.

    Attributes:
        top_1, top_5: percent of samples whose class is the first, among the first five; `top_5` is None with fewer
            than five classes.
        loss: mean cross-entropy of the true class, without label smoothing, in nats.
        num_samples: how many samples were counted.
        calibration_error: percent by which probabilities of the predicted classes and their accuracy differ, in 15 bins
            (`calibration`); None where a probability is not finite.
    """

    top_1: float
    top_5: float | None
    loss: float
    num_samples: int
    calibration_error: float | None = None

    @property
    def score(self) -> float:
        """The number by which evaluations are compared: top-1, in percent."""
        return self.top_1

    def result(self) -> dict[str, float | int | None]:
        """All of them by name, as validation prints them."""
        return {
            "top_1": self.top_1,
            "top_5": self.top_5,
            "loss": self.loss,
            "num_samples": self.num_samples,
            "calibration_error": self.calibration_error,
        }

    def in_mindcv_words(self) -> dict[str, float]:
        """Accuracies as shares of 1 and the loss, by MindCV's names."""
        named = {"Top_1_Accuracy": self.top_1, "Top_5_Accuracy": self.top_5}
        # Of whole samples, so that the share has no more digits than it needs.
        shares = {
            name: round(percent / 100 * self.num_samples) / self.num_samples
            for name, percent in named.items()
            if percent is not None
        }
        return {**shares, "loss": self.loss}

    def summary(self) -> str:
        """All of them in one line for people."""
        top_5 = "" if self.top_5 is None else f", top-5 {self.top_5:.2f} %"
        return f"top-1 {self.top_1:.2f} %{top_5}, loss {self.loss:.4f}"


@dataclass(frozen=True)
class Outcomes:
    """What a network made of each sample: arrays of one length.

    Attributes:
        labels: the true classes, int.
        predicted: the class of the largest logit, of equal ones the lowest, int; -1 where a logit is NaN.
        confidences: the probability (softmax) of the predicted class.
        ranks_of_truth: how many classes are ahead of the true one, int; all of them where a logit is NaN.
        losses: cross-entropy of the true class, in nats: its probability is exp(-loss).
        classes: of the network.
    """

    labels: NDArray[Any]
    predicted: NDArray[Any]
    confidences: NDArray[Any]
    ranks_of_truth: NDArray[Any]
    losses: NDArray[Any]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[Any]) -> Outcomes:
        """The outcomes of some samples, in the order of `indices`."""
        return Outcomes(
            self.labels[indices],
            self.predicted[indices],
            self.confidences[indices],
            self.ranks_of_truth[indices],
            self.losses[indices],
            self.classes,
        )

    def metrics(self) -> Metrics:
        """Counts divided once: the same numbers in any order of the samples, to the last bit.

        Raises ValueError where there is no sample.
        """
        samples = len(self)
        if not samples:
            raise ValueError("no sample was evaluated")
        return Metrics(
            top_1=100 * int((self.ranks_of_truth < 1).sum()) / samples,
            top_5=100 * int((self.ranks_of_truth < 5).sum()) / samples if self.classes >= 5 else None,
            # Rounded once, so that the order of the samples does not matter.
            loss=_sum(self.losses) / samples,
            num_samples=samples,
            calibration_error=100 * self.calibration().error if np.isfinite(self.confidences).all() else None,
        )

    def calibration(self) -> Calibration:
        """Probabilities of the predicted classes against how often these are right."""
        return calibration(self.confidences, self.ranks_of_truth == 0)


class Counts:
    """Collects what a network made of each sample, batch by batch."""

    def __init__(self) -> None:
        # One row for each array of Outcomes, in their order.
        self.tables: list[NDArray[Any]] = [np.empty((5, 0))]
        self.classes = 0

    def add(self, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count one batch: logits (N, classes) float, labels (N,) int.

        A class counts as beaten only by a larger logit, or an equal one of a class with a lower index, so that equal
        logits count the same in any order of evaluation.
        """
        rows = np.arange(len(labels))
        logits = logits.astype(np.float64)
        true = logits[rows, labels][:, None]
        before = (logits > true) | ((logits == true) & (np.arange(logits.shape[1]) < labels[:, None]))
        # A NaN beats nothing and is beaten by nothing; a sample with one is never right.
        undefined = np.isnan(logits).any(axis=1)
        rank = np.where(undefined, logits.shape[1], before.sum(axis=1))
        predicted = np.where(undefined, -1, logits.argmax(axis=1))
        sums = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        self.tables.append(np.stack([labels, predicted, 1 / sums, rank, cross_entropy(logits, labels)]))
        self.classes = logits.shape[1]

    def outcomes(self, ranks: Ranks = ALONE) -> Outcomes:
        """The outcomes of all ranks' samples, rank after rank. Every rank has to call it."""
        own = np.concatenate(self.tables, axis=1)
        parts = [np.frombuffer(part).reshape(len(own), -1) for part in ranks.gather_bytes(own.tobytes())]
        labels, predicted, confidences, ranks_of_truth, losses = np.concatenate(parts, axis=1)
        classes = max(int(count) for count in ranks.gather(np.array(self.classes)))
        return Outcomes(
            labels.astype(np.int64),
            predicted.astype(np.int64),
            confidences,
            ranks_of_truth.astype(np.int64),
            losses,
            classes,
        )


def cross_entropy(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The loss of each sample in nats, float64 (N,): logits (N, classes) and labels (N,) int."""
    logits = logits.astype(np.float64)
    largest = logits.max(axis=1)
    sums = np.exp(logits - largest[:, None]).sum(axis=1)
    return largest + np.log(sums) - logits[np.arange(len(labels)), labels]


def _sum(values: NDArray[Any]) -> float:
    """The exactly rounded sum; NaN or an infinity where there is one."""
    return math.fsum(values) if np.isfinite(values).all() else float(values.sum())
