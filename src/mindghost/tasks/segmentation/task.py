"""Semantic segmentation, as `tasks.task` asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray
from PIL import Image

from ...config import Config
from ...data.samples import Samples
from ...data.scan import WHOLE, Part
from ...data.transforms import Transform
from ...files.table_file import Column
from ...runs.files import Color
from .. import class_weights, names
from ..show import Guess
from ..task import Report, Task
from . import TITLES, checks, classes, geometry, images, predictions, report, show, weights
from .examples import describe_fitting, fitting, fitting_pixels
from .metrics import Counts
from .samples import MaskSamples, open_split

if TYPE_CHECKING:
    from mindspore import nn


class Segmentation(Task):
    """Labels are masks: in training int32 (N, H, W), in evaluation a list of what is in the files, of any sizes."""

    name = "segmentation"
    record_keys = ("val_loss", "miou", "pixel_accuracy")
    score = "miou"
    titles: ClassVar[Mapping[str, str]] = TITLES
    score_unit = " %"
    loss_title = "loss (cross-entropy of a pixel, nats)"
    hub_words: ClassVar[Mapping[str, str]] = {"miou": "mIoU"}
    hub_type = "cv-segmentation"
    outputs_mean = "logits of each pixel; their softmax over the classes are the probabilities"
    most_answers = None
    answer_value = "share"
    is_dense = True
    report: ClassVar[Report] = report

    def open_split(self, config: Config, split: str, known: Sequence[str] | None = None, part: Part = WHOLE) -> Samples:
        if split == "train":
            checks.refuse(config)
        return open_split(config, split, known, part)

    def known_names(self, weights: str) -> list[str] | None:
        return names.saved_classes(weights)

    def read_classes(self, file: Path) -> names.Classes:
        return classes.read(file)

    def colors(self, samples: Samples) -> Sequence[Color] | None:
        assert isinstance(samples, MaskSamples)
        return samples.colors

    def colored(self, samples: Samples, colors: Sequence[Color]) -> Samples:
        assert isinstance(samples, MaskSamples)
        return samples if samples.colors else replace(samples, colors=list(colors))

    def palette(self, outputs: int) -> Sequence[Color]:
        return classes.palette(outputs)

    def settled(self, config: Config, samples: Samples) -> Config:
        assert isinstance(samples, MaskSamples)
        rule = weights.RULES.get(str(config.class_weights))
        if rule is None:
            return class_weights.settled(config, samples)
        return class_weights.by_rule(config, samples, rule(samples.pixels()))

    def pixels(self, samples: Samples) -> Sequence[int]:
        assert isinstance(samples, MaskSamples)
        return samples.pixels().sum(axis=0).tolist()

    def doubts(self, config: Config, samples: Samples) -> list[str]:
        assert isinstance(samples, MaskSamples)
        return list(checks.doubts(config, samples))

    def loss(self, config: Config) -> nn.Cell:
        from . import losses  # which imports MindSpore

        return losses.MaskLoss(config)

    def counts(self, samples: Samples, thresholds: tuple[float, ...] | None = None) -> Counts:
        assert isinstance(samples, MaskSamples)
        return Counts(samples.classes, samples.ignored)

    def line(self, record: Mapping[str, Any]) -> list[str]:
        if record["miou"] is None:
            return []
        return [f"val loss {record['val_loss']:.4f}", *(f"{t} {record[key]:.2f} %" for key, t in self.titles.items())]

    def columns(self, classes: Sequence[str], outputs: int) -> tuple[Column, ...]:
        return predictions.COLUMNS

    def values(self, outputs: NDArray[Any], labels: Any, samples: Samples) -> dict[str, NDArray[Any]]:
        assert isinstance(samples, MaskSamples)
        return predictions.values(outputs, labels, samples.ignored)

    def eval_transform(self, config: Config) -> Transform:
        return fitting(config)

    def eval_pixels(self, config: Config) -> Callable[[NDArray[Any]], NDArray[Any]]:
        return fitting_pixels(config)

    def eval_words(self, config: Config) -> str:
        return "into which evaluation fits them"

    def describe_evaluation(self, config: Config) -> dict[str, object]:
        return describe_fitting(config)

    def some_images(self, config: Config, split: str, count: int) -> list[NDArray[Any]]:
        return images.some(config, split, count)

    def image_groups(self, folder: Path) -> list[list[str]]:
        return [found] if (found := images.below(folder)) else []

    def answers(
        self,
        outputs: Sequence[NDArray[Any]],
        classes: Sequence[str],
        most: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[tuple[Guess, ...]]:
        return [show.shares(mask, classes, most) for mask in outputs]

    def masks(self, outputs: NDArray[Any], sizes: Sequence[tuple[int, int]]) -> list[NDArray[Any]]:
        return [geometry.predicted(logits, size) for logits, size in zip(outputs, sizes, strict=True)]

    def draw(
        self,
        pixels: NDArray[Any],
        answers: Sequence[Guess],
        mask: NDArray[Any] | None = None,
        colors: Sequence[Color] | None = None,
    ) -> Image.Image:
        assert mask is not None
        assert colors is not None
        return show.draw(pixels, answers, mask, colors)

    def overlay(self, pixels: NDArray[Any], mask: NDArray[Any], colors: Sequence[Color]) -> NDArray[Any]:
        whole, (height, width) = slice(None), pixels.shape[:2]
        return show.mixed(pixels, show.painted(geometry.nearest(mask, (height, width), whole, whole), colors))

    def picture_of(self, mask: NDArray[Any], colors: Sequence[Color]) -> Image.Image:
        return show.picture_of(mask, colors)


TASK = Segmentation()
