"""A second task, to prove that nothing outside of a task knows what a label is: a number for each image.

The folder that an image lies in is called by its number: `train/0.25/a.png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image

from mindghost.data import dataset
from mindghost.data.scan import WHOLE
from mindghost.parallel.ranks import ALONE, Ranks
from mindghost.tasks.task import Task


@dataclass(frozen=True)
class Errors:
    """Predicted and true numbers, float64 (N,) each."""

    found: np.ndarray
    true: np.ndarray

    def take(self, indices: np.ndarray) -> Errors:
        return Errors(self.found[indices], self.true[indices])

    def metrics(self) -> ErrorMetrics:
        errors = np.abs(self.found - self.true)
        return ErrorMetrics(float(errors.mean()), float(np.square(errors).mean()), len(errors))


@dataclass(frozen=True)
class ErrorMetrics:
    """Mean absolute error, mean squared error."""

    error: float
    loss: float
    num_samples: int

    @property
    def score(self) -> float:
        return 1 / (1 + self.error)

    def result(self) -> dict[str, Any]:
        return {"closeness": self.score, "error": self.error, "loss": self.loss, "num_samples": self.num_samples}

    def summary(self) -> str:
        return f"mean error {self.error:.3f}"


class ErrorCounts:
    def __init__(self) -> None:
        self.rows: list[np.ndarray] = [np.empty((2, 0))]

    def add(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        self.rows.append(np.stack([outputs[:, 0], labels]).astype(np.float64))

    def outcomes(self, ranks: Ranks = ALONE) -> Errors:
        own = np.concatenate(self.rows, axis=1)
        parts = [np.frombuffer(part).reshape(2, -1) for part in ranks.gather_bytes(own.tobytes())]
        return Errors(*np.concatenate(parts, axis=1))


class SquaredError(nn.Cell):
    def construct(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return ops.reduce_mean(ops.square(outputs[:, 0] - labels))


class TextReport:
    PAGE = "errors.txt"

    def prepare(self, folder: Path, overwrite: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, folder: Path, outcomes: Errors, samples: Any, facts: Mapping[str, str]) -> None:
        lines = [f"{samples.name(index)} {found:.3f}" for index, found in enumerate(outcomes.found)]
        (folder / self.PAGE).write_text("\n".join([facts["model"], *lines]))


@dataclass(frozen=True)
class Value:
    label: int
    name: str
    probability: float


class Regression(Task):
    name = "regression"
    record_keys = ("val_loss", "closeness")
    score = "closeness"
    titles = {"closeness": "closeness"}  # noqa: RUF012
    score_unit = ""
    report = TextReport()

    def open_split(self, config, split, known=None, part=WHOLE):
        folders = dataset.open_split(config.replace(num_classes=None), split, None, part)
        values = np.array([float(name) for name in folders.classes], np.float32)
        return replace(folders, classes=("value",), labels=values[folders.labels])

    def known_names(self, weights: str) -> list[str] | None:
        return ["value"]

    def doubts(self, config, samples) -> list[str]:
        return []

    def loss(self, config) -> nn.Cell:
        return SquaredError()

    def counts(self, samples, thresholds=None) -> ErrorCounts:
        return ErrorCounts()

    def line(self, record: Mapping[str, Any]) -> list[str]:
        return [] if record["closeness"] is None else [f"closeness {record['closeness']:.3f}"]

    def answers(self, outputs, classes, most=None, thresholds=None) -> list[tuple[Value, ...]]:
        return [(Value(0, classes[0], float(value)),) for value in outputs[:, 0]]

    def draw(self, pixels: np.ndarray, answers: Sequence[Value], mask=None, colors=None) -> Image.Image:
        return Image.fromarray(pixels)


TASK = Regression()
