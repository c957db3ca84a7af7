"""Evaluation of a network over the samples of a split, each once, whatever the number of ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from mindspore import nn
from numpy.typing import NDArray
from tqdm import tqdm

from .. import build, tasks
from ..config import Config
from ..data import evaluation
from ..data.samples import Samples
from ..inference.batches import filled
from ..inference.formats import Network
from ..inference.network import divided, mirrored, of_cell
from ..models.parameters import assign
from ..parallel.ranks import ALONE, Ranks
from ..runtime import Runtime
from ..tasks.task import Counts, Metrics, Outcomes
from .batch import sparing


class Sink(Protocol):
    """Takes what a network says of the samples, batch by batch."""

    def add(self, outputs: NDArray[Any], labels: Any, /) -> None:
        """One batch: outputs (N, num_classes, ...) float32, labels as the batches have them, N of them."""


class Tempered:
    """Passes a network's outputs on, divided by a temperature."""

    def __init__(self, temperature: float, sinks: Sequence[Sink]) -> None:
        self._temperature, self._sinks = temperature, sinks

    def add(self, outputs: NDArray[Any], labels: Any) -> None:
        """Pass one batch on."""
        for sink in self._sinks:
            sink.add(divided(outputs, self._temperature), labels)


def counted(config: Config) -> str:
    """What the numbers of an evaluation are of, in words."""
    return "the mean logits of each image and its mirror image" if config.eval_mirror else "each image once"


def outcomes(
    counts: Counts,
    network: Network,
    batches: Iterable[tuple[NDArray[Any], Any]],
    batch_size: int,
    ranks: Ranks = ALONE,
    also: Sink | None = None,
) -> Outcomes:
    """What a network makes of each sample.

    Args:
        counts: of the task, empty.
        network: see `of_cell`.
        batches: numpy images and labels, N each; N may be smaller in the last one. Those of this rank.
        batch_size: each batch is `filled` up to this size, so that the graph is compiled for one shape only.
        ranks: which share the evaluation and all get its results.
        also: gets what the network says, too.

    Returns the outcomes of all ranks' samples, rank after rank.
    """
    for images, labels in batches:
        outputs = network(filled(images, batch_size))[: len(labels)]
        counts.add(outputs, labels)
        if also is not None:
            also.add(outputs, labels)
    return counts.outcomes(ranks)


class Evaluator:
    """Evaluates networks over the validation images, which the ranks share.

    Args:
        runtime: its configuration says how images are read.
        samples: to evaluate on.
        thresholds: those that belong to the network (`Task.thresholds`); None where none are known.
    """

    def __init__(self, runtime: Runtime, samples: Samples, thresholds: tuple[float, ...] | None = None) -> None:
        config, ranks = runtime.config, runtime.ranks
        self.runtime, self.samples, self.thresholds = runtime, samples, thresholds
        self.task = tasks.of(config)
        self.batches = evaluation.eval_batches(config, samples, ranks.rank, ranks.size)
        # A batch of copies of one image would take its memory and its time for nothing.
        self.batch_size = min(config.batch_size, len(samples))

    def outcomes(self, network: Network, also: Sink | None = None) -> Outcomes:
        """What a network makes of each sample, in the order of `samples`, whatever the number of ranks.

        With the key `eval_mirror`, the network is `mirrored`. `also` gets what it says. Where memory runs out, it
        takes fewer images at once.

        On a terminal, rank 0 draws a bar.
        """
        batches = tqdm(self.batches, "validation", unit="batch", leave=False, disable=not draws(self.runtime.ranks))
        network = sparing(network)
        network = mirrored(network) if self.runtime.config.eval_mirror else network
        counts = self.task.counts(self.samples, self.thresholds)
        found = outcomes(counts, network, batches, self.batch_size, self.runtime.ranks, also)
        return found.take(np.argsort(self.batches.order_over_ranks))


def draws(ranks: Ranks) -> bool:
    """Whether progress bars are drawn: on a terminal, by rank 0."""
    return ranks.main and sys.stderr.isatty()


class WeightsEvaluator(Evaluator):
    """Evaluates weights in a network of their own, while another one is trained."""

    @cached_property
    def network(self) -> nn.Cell:
        """Made when it is needed: making a network takes as long as some steps."""
        return build.evaluation_network(self.runtime.config, self.runtime.operators)

    def __call__(self, weights: dict[str, NDArray[Any]]) -> Metrics:
        """The numbers of an evaluation with these weights, by parameter name; every rank has to call it."""
        for parameter in self.network.get_parameters():
            assign(parameter, weights[parameter.name])
        form = build.for_plan(self.runtime.config, self.runtime.operators)
        return self.outcomes(of_cell(self.network, self.runtime.graphs, form)).metrics()
