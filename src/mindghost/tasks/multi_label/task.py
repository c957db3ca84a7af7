"""Images with any number of labels, as `tasks.task` asks for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...data import dataset
from ...data.samples import Samples
from ...data.scan import WHOLE, Part
from ...files.table_file import Column
from ...process.display import some
from .. import class_weights, names
from ..report.words import output_names
from ..show import Guess
from ..task import Report, Task
from . import TITLES, predictions, report, show
from .metrics import Counts, Metrics

if TYPE_CHECKING:
    from mindspore import nn

log = logging.getLogger("mindghost")


class MultiLabel(Task):
    """Labels are rows, float32 (N, num_classes): 1 for each label of an image, mixed by mixup and cutmix."""

    name = "multi_label"
    record_keys = ("val_loss", "mean_average_precision", "micro_f1", "macro_f1")
    score = "mean_average_precision"
    titles: ClassVar[Mapping[str, str]] = TITLES
    score_unit = " %"
    loss_title = "loss (binary cross-entropy, nats)"
    hub_words: ClassVar[Mapping[str, str]] = {"mean_average_precision": "mAP"}
    outputs_mean = "logits; the sigmoid of each is the probability of its label"
    most_answers = None
    has_thresholds = True
    explains = True
    report: ClassVar[Report] = report

    def open_split(self, config: Config, split: str, known: Sequence[str] | None = None, part: Part = WHOLE) -> Samples:
        samples = dataset.open_split(config, split, known, part, several=True)
        missing = (config.num_classes or 0) - samples.labels.shape[1]
        # Outputs beyond the labels that the data knows belong to no image.
        return replace(samples, labels=np.pad(samples.labels, ((0, 0), (0, missing)))) if missing > 0 else samples

    def known_names(self, weights: str) -> list[str] | None:
        return names.saved_classes(weights)

    def say_order(self, classes: Sequence[str], why: str) -> None:
        names.say_order(classes, why)

    def settled(self, config: Config, samples: Samples) -> Config:
        if config.loss == "CE":
            log.info("task multi_label: each label has a binary cross-entropy of its own (loss: BCE)")
            config = config.replace(loss="BCE")
        return class_weights.settled(config, samples)

    def doubts(self, config: Config, samples: Samples) -> list[str]:
        found = []
        counts = samples.labels.sum(axis=1)
        if len(samples.classes) > 1 and (counts == 1).all():
            found.append("every training image has exactly one label: task classification is made for that")
        unseen = [name for name, has in zip(samples.classes, samples.labels.any(axis=0), strict=False) if not has]
        if unseen:
            found.append(f"no training image has {len(unseen)} of the labels: {some(unseen)}")
        return found

    def loss(self, config: Config) -> nn.Cell:
        from .. import losses  # which imports MindSpore

        return losses.BinaryCrossEntropy(config)

    def counts(self, samples: Samples, thresholds: tuple[float, ...] | None = None) -> Counts:
        return Counts(thresholds)

    def thresholds(self, metrics: Metrics) -> tuple[float, ...]:
        return metrics.thresholds

    def line(self, record: Mapping[str, Any]) -> list[str]:
        if record["mean_average_precision"] is None:
            return []
        parts = [f"{title} {record[key]:.2f} %" for key, title in self.titles.items() if key != "micro_f1"]
        return [f"val loss {record['val_loss']:.4f}", *parts]

    def columns(self, classes: Sequence[str], outputs: int) -> tuple[Column, ...]:
        return predictions.columns(output_names(classes, outputs))

    def values(self, outputs: NDArray[Any], labels: NDArray[Any], samples: Samples) -> dict[str, NDArray[Any]]:
        return predictions.values(outputs, labels)

    def answers(
        self,
        outputs: NDArray[Any],
        classes: Sequence[str],
        most: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[tuple[Guess, ...]]:
        return show.labels(outputs, classes, most, thresholds)


TASK = MultiLabel()
