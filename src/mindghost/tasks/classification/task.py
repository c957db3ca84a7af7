"""Classification, as `tasks.task` asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from ...config import Config
from ...data import dataset
from ...data.imagenet import names as imagenet_names
from ...data.samples import Samples
from ...data.scan import WHOLE, Part
from ...files.table_file import Column
from .. import class_weights, names
from ..show import Guess
from ..task import Report, Task
from . import TITLES, calibration, checks, predictions, report, show
from .metrics import Counts

if TYPE_CHECKING:
    from mindspore import nn


class Classification(Task):
    """Labels are classes: int32 (N,), or with mixup and cutmix shares of them, float32 (N, num_classes)."""

    name = "classification"
    record_keys = ("val_loss", "top_1", "top_5")
    score = "top_1"
    titles: ClassVar[Mapping[str, str]] = TITLES
    score_unit = " %"
    loss_title = "loss (cross-entropy, nats)"
    hub_words: ClassVar[Mapping[str, str]] = {"top_1": "top1acc", "top_5": "top5acc"}
    has_temperature = True
    explains = True
    report: ClassVar[Report] = report

    def open_split(self, config: Config, split: str, known: Sequence[str] | None = None, part: Part = WHOLE) -> Samples:
        samples = dataset.open_split(config, split, known, part)
        if split == "train" and names.in_other_order(samples.classes):
            names.say_order(samples.classes, "the class folders are numbers")
        return samples

    def known_names(self, weights: str) -> list[str] | None:
        return names.saved_classes(weights)

    def say_order(self, classes: Sequence[str], why: str) -> None:
        names.say_order(classes, why)

    def settled(self, config: Config, samples: Samples) -> Config:
        return class_weights.settled(config, samples)

    def mirrored(self, outputs: Sequence[str]) -> bool:
        return not checks.are_signs(outputs)

    def doubts(self, config: Config, samples: Samples) -> list[str]:
        return list(checks.doubts(config, samples))

    def loss(self, config: Config) -> nn.Cell:
        from .. import losses  # which imports MindSpore

        return losses.CrossEntropy(config) if config.loss == "CE" else losses.BinaryCrossEntropy(config)

    def counts(self, samples: Samples, thresholds: tuple[float, ...] | None = None) -> Counts:
        return Counts()

    def temperature(self, logits: NDArray[Any], labels: NDArray[Any]) -> float:
        return calibration.temperature(logits, labels)

    def in_mindcv_words(self, metrics: Any) -> dict[str, float]:
        return metrics.in_mindcv_words()

    def line(self, record: Mapping[str, Any]) -> list[str]:
        parts = []
        if record["top_1"] is not None:
            parts += [f"val loss {record['val_loss']:.4f}", f"top-1 {record['top_1']:.2f} %"]
        if record["top_5"] is not None:
            parts.append(f"top-5 {record['top_5']:.2f} %")
        return parts

    def columns(self, classes: Sequence[str], outputs: int) -> tuple[Column, ...]:
        return predictions.columns(classes, outputs)

    def values(self, outputs: NDArray[Any], labels: NDArray[Any], samples: Samples) -> dict[str, NDArray[Any]]:
        return predictions.values(outputs, labels)

    def answers(
        self,
        outputs: NDArray[Any],
        classes: Sequence[str],
        most: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[tuple[Guess, ...]]:
        return show.guesses(outputs, imagenet_names.shown_as(classes), most or self.most_answers)


TASK = Classification()
