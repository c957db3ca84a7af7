"""Accuracy and loss of a network: counts over every sample once, divided once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn

from .distributed import ALONE, Ranks


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
    """What is known of each sample, which `metrics` sums over all ranks and divides once."""

    def __init__(self) -> None:
        self.ranks_of_truth: list[np.ndarray] = []
        self.losses: list[np.ndarray] = []
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
        self.ranks_of_truth.append(rank)
        self.losses.append(log_sum - true[:, 0])
        self.classes = logits.shape[1]

    def metrics(self, ranks: Ranks = ALONE) -> Metrics:
        """The sums over all ranks, divided: the same numbers however many ranks there are, to the last bit.

        Raises ValueError where nothing was counted.
        """
        own = np.stack([np.concatenate([np.empty(0), *part]) for part in (self.ranks_of_truth, self.losses)])
        gathered = [np.frombuffer(part).reshape(2, -1) for part in ranks.gather_bytes(own.astype(np.float64).tobytes())]
        rank, losses = np.concatenate(gathered, axis=1)
        classes = max(int(count) for count in ranks.gather(np.array(self.classes)))
        samples = len(losses)
        if not samples:
            raise ValueError("no sample was evaluated")
        return Metrics(
            top_1=100 * int((rank < 1).sum()) / samples,
            top_5=100 * int((rank < 5).sum()) / samples if classes >= 5 else None,
            # Rounded once, so that the order of the samples does not matter.
            loss=_sum(losses) / samples,
            num_samples=samples,
        )


def _sum(values: np.ndarray) -> float:
    """The exactly rounded sum; NaN or an infinity where there is one."""
    return math.fsum(values) if np.isfinite(values).all() else float(values.sum())


def evaluate(
    network: nn.Cell | Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    batch_size: int,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Evaluate a network in inference mode.

    Args:
        network: images (N, C, H, W) float32 -> logits (N, classes); a cell, or a function of numpy arrays.
        batches: numpy images and labels (N,) int; N may be smaller in the last one. Those of this rank.
        batch_size: each batch is filled up to this size with copies of its first image, which are not counted, so
            that the graph is compiled for one shape only.
        ranks: which share the evaluation and all get its results.
    """
    cell = isinstance(network, nn.Cell)
    if cell:
        network.set_train(False)
    counts = Counts()
    for images, labels in batches:
        missing = batch_size - len(images)
        filled = np.concatenate([images, np.repeat(images[:1], missing, axis=0)]) if missing else images
        logits = network(Tensor(filled)).asnumpy() if cell else network(filled)
        counts.add(logits[: len(labels)], labels)
    return counts.metrics(ranks)
