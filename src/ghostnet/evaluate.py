"""Accuracy and loss of a network: counts over every sample once, divided once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn


@dataclass(frozen=True)
class Metrics:
    """Results of one evaluation.

    Attributes:
        top_1, top_5: percent of samples whose class is the first, among the first five; `top_5` is None with fewer
            than five classes.
        loss: mean cross-entropy of the true class, without label smoothing, in nats.
        num_samples: how many samples were counted.
    """

    top_1: float
    top_5: float | None
    loss: float
    num_samples: int


class Counts:
    """Sums over samples that `metrics` divides once."""

    def __init__(self) -> None:
        self.samples = self.first = self.first_five = 0
        self.loss = 0.0
        self.classes = 0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count one batch: logits (N, classes) float, labels (N,) int.

        A class counts as beaten only by a larger logit, or an equal one of a class with a lower index, so that equal
        logits count the same in any order of evaluation.
        """
        rows = np.arange(len(labels))
        logits = logits.astype(np.float64)
        true = logits[rows, labels][:, None]
        before = (logits > true) | ((logits == true) & (np.arange(logits.shape[1]) < labels[:, None]))
        # A NaN beats nothing and is beaten by nothing; a sample with one is never right.
        rank = np.where(np.isnan(logits).any(axis=1), logits.shape[1], before.sum(axis=1))
        largest = logits.max(axis=1)
        log_sum = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
        self.loss += float((log_sum - true[:, 0]).sum())
        self.first += int((rank < 1).sum())
        self.first_five += int((rank < 5).sum())
        self.samples += len(labels)
        self.classes = logits.shape[1]

    def metrics(self) -> Metrics:
        """The sums, divided. Raises ValueError where nothing was counted."""
        if not self.samples:
            raise ValueError("no sample was evaluated")
        return Metrics(
            top_1=100 * self.first / self.samples,
            top_5=100 * self.first_five / self.samples if self.classes >= 5 else None,
            loss=self.loss / self.samples,
            num_samples=self.samples,
        )


def evaluate(network: nn.Cell, batches: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int) -> Metrics:
    """Evaluate a network in inference mode.

    Args:
        network: images (N, C, H, W) float32 -> logits (N, classes).
        batches: numpy images and labels (N,) int; N may be smaller in the last one.
        batch_size: each batch is filled up to this size with copies of its first image, which are not counted, so
            that the graph is compiled for one shape only.
    """
    network.set_train(False)
    counts = Counts()
    for images, labels in batches:
        missing = batch_size - len(images)
        filled = np.concatenate([images, np.repeat(images[:1], missing, axis=0)]) if missing else images
        logits = network(Tensor(filled)).asnumpy()[: len(labels)]
        counts.add(logits, labels)
    return counts.metrics()
