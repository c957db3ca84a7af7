"""The seam between what labels mean and everything else: what a task is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray
from PIL import Image

from ..config import Config
from ..data import class_names, dataset, jpeg, transforms, walk
from ..data.samples import Samples
from ..data.scan import WHOLE, Part
from ..data.transforms import Transform
from ..errors import UserError
from ..files.table_file import Column
from ..parallel.ranks import ALONE, Ranks
from ..runs.files import Color
from . import show
from .names import Classes

if TYPE_CHECKING:
    from mindspore import nn


class Metrics(Protocol):
    """The numbers of one evaluation."""

    @property
    def score(self) -> float:
        """The number by which evaluations are compared: higher is better, and it is not negative."""

    @property
    def loss(self) -> float:
        """Mean loss of a sample."""

    @property
    def num_samples(self) -> int:
        """How many samples were counted."""

    def result(self) -> dict[str, Any]:
        """All of them by name, as validation prints them: JSON values."""

    def summary(self) -> str:
        """All of them in one line for people."""


class Outcomes(Protocol):
    """What a network made of each sample."""

    def take(self, indices: NDArray[Any]) -> Outcomes:
        """The outcomes of some samples, in the order of `indices`."""

    def metrics(self) -> Metrics:
        """The numbers that they amount to: the same in any order of the samples, to the last bit."""


class Counts(Protocol):
    """Collects what a network made of each sample, batch by batch."""

    def add(self, outputs: NDArray[Any], labels: Any, /) -> None:
        """Count one batch: outputs (N, num_classes, ...) float32, labels as the batches have them, N of them."""

    def outcomes(self, ranks: Ranks = ALONE) -> Outcomes:
        """The outcomes of all ranks' samples, rank after rank. Every rank has to call it."""


class Explain(Protocol):
    """Says where in images a network saw a class."""

    def __call__(self, images: Sequence[NDArray[Any]], labels: Sequence[int]) -> list[NDArray[Any]]:
        """Images, uint8 (height, width, 1 or 3), with what each shows of its label drawn over it: RGB, of its size."""


class Report(Protocol):
    """Writes what `report: DIR` asks for.

    Attributes:
        PAGE: name of the file that a reader opens.
    """

    PAGE: str

    def prepare(self, folder: Path, overwrite: bool) -> None:
        """Make sure, before the work, that a report can be written into a folder, which is made. Raises UserError."""

    def write(
        self, folder: Path, outcomes: Any, samples: Samples, facts: Mapping[str, str], explain: Explain | None = None
    ) -> None:
        """Write all files of a report, or none.

        `facts` is said about the evaluation beside its numbers; `explain` draws maps over images that it shows.
        """


class Answer(Protocol):
    """One of the things that a network says of an image, as `predict` prints it."""

    @property
    def label(self) -> int:
        """Index among the network's outputs."""

    @property
    def name(self) -> str:
        """Name of that output."""

    @property
    def probability(self) -> float:
        """How sure the network is, from 0 to 1; for a task without probabilities, its `answer_value`."""


class Task(ABC):
    """What labels mean: how they are read, learnt, counted, named, drawn and reported.

    Training, evaluation, export, quantising and prediction ask the task of their configuration (`tasks.of`), and know
    nothing else of it.

    Attributes:
        name: value of the key `task`.
        record_keys: the entries of `metrics.jsonl` that an evaluation fills, in their order; one that is not evaluated
            leaves them None.
        score: which of them is the score.
        titles: what the entries beside the loss are called in a sentence: "top_1" is the top-1.
        score_unit: what follows one of their numbers: " %".
        loss_title: what the loss is, in words.
        hub_words: what MindSpore Hub's cards call those entries.
        hub_type: what they call the task.
        outputs_mean: what the outputs of an exported file are, for its description.
        most_answers: how many answers an image gets where nobody says; None for all that there are.
        answer_value: what the number of an answer is.
        has_thresholds: whether an answer is given from a probability on that an evaluation found.
        has_temperature: whether probabilities become better where all logits are divided by one number.
        explains: whether answers are about whole images, so that maps can show where the network saw them; its report
            takes an `Explain` then.
        is_dense: whether outputs are of each pixel: (N, num_classes, H, W).
        report: the writer of reports.
    """

    name: ClassVar[str]
    record_keys: ClassVar[tuple[str, ...]]
    score: ClassVar[str]
    titles: ClassVar[Mapping[str, str]]
    score_unit: ClassVar[str]
    loss_title: ClassVar[str] = "loss"
    hub_words: ClassVar[Mapping[str, str]] = {}
    hub_type: ClassVar[str] = "cv-classification"
    outputs_mean: ClassVar[str] = "logits; their softmax are the probabilities"
    most_answers: ClassVar[int | None] = 5
    answer_value: ClassVar[str] = "probability"
    has_thresholds: ClassVar[bool] = False
    has_temperature: ClassVar[bool] = False
    explains: ClassVar[bool] = False
    is_dense: ClassVar[bool] = False
    report: ClassVar[Report]

    @property
    def score_title(self) -> str:
        """What the score is called in a sentence."""
        return self.titles[self.score]

    # --- Labels

    @abstractmethod
    def open_split(self, config: Config, split: str, known: Sequence[str] | None = None, part: Part = WHOLE) -> Samples:
        """The samples of a split, with their labels and the names of the outputs (`Samples.classes`).

        Args:
            config: says where the images are.
            split: "train" or "val".
            known: names of the outputs in their order, where a trained network has them.
            part: of several processes, this one's of the images to look into.

        Raises UserError for images or labels that are not fit.
        """

    @abstractmethod
    def known_names(self, weights: str) -> list[str] | None:
        """The names of the outputs that lie beside a weight file; None where there are none."""

    def read_classes(self, file: Path) -> Classes:
        """The classes in a file, and their colours where it has some that the task knows. Raises UserError."""
        return Classes(class_names.read(file))

    def colors(self, samples: Samples) -> Sequence[Color] | None:
        """The colours of the outputs in pictures, where the data says them; they are kept beside the weights."""
        return None

    def colored(self, samples: Samples, colors: Sequence[Color]) -> Samples:
        """Samples with the colours that belong to a network, where they have none of their own."""
        return samples

    def palette(self, outputs: int) -> Sequence[Color] | None:
        """Colours for so many outputs where none are kept; None for a task whose pictures have none."""
        return None

    def say_order(self, classes: Sequence[str], why: str) -> None:  # noqa: B027  (most tasks have nothing to say)
        """Say which output is which, where only the data knows it."""

    def settled(self, config: Config, samples: Samples) -> Config:
        """The configuration of a training with what its samples decide, so that a run that goes on has the same.

        Args:
            config: of the run, with its number of outputs.
            samples: the whole training split.

        Raises UserError for a key that does not fit them.
        """
        for key in ("class_weights", "sampler"):
            if getattr(config, key) is not None:
                raise UserError(f"{key}: task {self.name} has no classes that it could be for; leave the key out")
        return config

    def pixels(self, samples: Samples) -> Sequence[int] | None:
        """How many pixels of all samples have each class; None where labels are those of whole images."""
        return None

    @abstractmethod
    def doubts(self, config: Config, samples: Samples) -> list[str]:
        """A line for each setting that makes little sense with these samples."""

    def mirrored(self, outputs: Sequence[str]) -> bool:
        """Whether a mirror image has the label of its image, as far as the names of the outputs tell."""
        return True

    # --- Learning and counting

    @abstractmethod
    def loss(self, config: Config) -> nn.Cell:
        """Outputs (N, num_classes, ...) float32 and labels as the batches have them -> scalar float32.

        Where samples have weights, it is given these, too: float32 (N,), see `data.loader.train_batches`.
        """

    @abstractmethod
    def counts(self, samples: Samples, thresholds: tuple[float, ...] | None = None) -> Counts:
        """An empty collection.

        Args:
            samples: that are to be evaluated.
            thresholds: those that an earlier evaluation of the network found, if any did.
        """

    def thresholds(self, metrics: Any) -> tuple[float, ...] | None:
        """The probability from which an answer is given, for each output, as an evaluation found it to be best.

        They are kept beside the weights and inside of exported files. None for a task that has no use for them.
        """
        return None

    def temperature(self, logits: NDArray[Any], labels: NDArray[Any]) -> float:
        """What logits are to be divided by, so that probabilities say how often answers are right.

        Args:
            logits: (N, num_classes) float32, of samples that the network was not trained on.
            labels: (N,) int, as the batches have them.

        Raises TypeError unless `has_temperature`.
        """
        raise TypeError(f"task {self.name} has no temperature")

    def record(self, metrics: Metrics | None) -> dict[str, Any]:
        """The entries of `metrics.jsonl` for an evaluation, or for none."""
        if metrics is None:
            return dict.fromkeys(self.record_keys)
        found = metrics.result()
        return {key: found[key.removeprefix("val_")] for key in self.record_keys}

    def in_mindcv_words(self, metrics: Metrics) -> dict[str, float]:
        """The numbers of an evaluation as MindCV's `validate.py` prints them; none where it has no words for them."""
        return {}

    @abstractmethod
    def line(self, record: Mapping[str, Any]) -> list[str]:
        """What a record says of an evaluation, for people, in parts; none where there was no evaluation."""

    # --- Rows of `predictions`

    def columns(self, classes: Sequence[str], outputs: int) -> tuple[Column, ...]:
        """The columns that a row has beside the path of its image.

        Args:
            classes: names of the outputs, as far as they are known.
            outputs: of the network.
        """
        return (Column("true", "f8"), Column("output", "f4", parts=[str(index) for index in range(outputs)]))

    def values(self, outputs: NDArray[Any], labels: Any, samples: Samples) -> Mapping[str, NDArray[Any]]:
        """What stands in each column for one batch of `samples`: outputs and labels as for `Counts.add`."""
        return {"true": labels, "output": outputs}

    # --- What a network gets of an image

    def eval_transform(self, config: Config) -> Transform:
        """What evaluation makes of an image (see `transforms.as_rgb`): called with (image, out=None) -> (C, H, W)."""
        return transforms.eval_transform(config, jpeg.decoder(config.native_ops))

    def eval_pixels(self, config: Config) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """The pixels that a network sees of an image: uint8 (h, w, 3) -> uint8 (h, w, in_channels)."""
        return transforms.eval_pixels(config)

    def eval_words(self, config: Config) -> str:
        """How evaluation brings images to their size, in a few words."""
        return f"as evaluation cuts them (crop_pct {config.crop_pct if config.dataset == 'imagenet' else 1:g})"

    def describe_evaluation(self, config: Config) -> dict[str, object]:
        """The same in words and numbers, for programs without this package; see `transforms.describe_evaluation`."""
        return transforms.describe_evaluation(config)

    def some_images(self, config: Config, split: str, count: int) -> list[NDArray[Any]]:
        """Up to `count` readable images of a split, uint8 (h, w, 3 or 1); none where there is no such split."""
        return dataset.some_images(config, split, count)

    def image_groups(self, folder: Path) -> list[list[str]]:
        """The image files in a folder or below it, those of each class together where it has folders of them."""
        files = walk.image_files(folder)
        return [[files[index] for index in group] for group in walk.by_class_folder(files, folder).values()]

    # --- Answers

    def masks(self, outputs: NDArray[Any], sizes: Sequence[tuple[int, int]]) -> Sequence[NDArray[Any]] | None:
        """The class of each pixel of some images, uint8 or uint16 (height, width); None unless `is_dense`.

        Args:
            outputs: (N, num_classes, ...) float32.
            sizes: height and width of each image.
        """
        return None

    @abstractmethod
    def answers(
        self,
        outputs: Any,
        classes: Sequence[str],
        most: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> Sequence[tuple[Answer, ...]]:
        """What a network says of each image, the first answer first.

        Args:
            outputs: (N, num_classes) float32; or the `masks` that were made of them.
            classes: names of the outputs.
            most: answers that are wanted at most; None: `most_answers`.
            thresholds: those that belong to the network (see `thresholds`); None where none are known.
        """

    def draw(
        self,
        pixels: NDArray[Any],
        answers: Sequence[Any],
        mask: NDArray[Any] | None = None,
        colors: Sequence[Color] | None = None,
    ) -> Image.Image:
        """A picture of an image, uint8 (height, width, 3), with the answers in it.

        Args:
            pixels: of the image.
            answers: of `answers`.
            mask: of `masks`.
            colors: of the classes in it.
        """
        return show.draw(pixels, answers)

    def overlay(self, pixels: NDArray[Any], mask: NDArray[Any], colors: Sequence[Color]) -> NDArray[Any]:
        """An image with its pixels' classes over it, uint8 (height, width, 3). Raises TypeError unless `is_dense`.

        Args:
            pixels: of the image, uint8 (height, width, 3); it may be at another size than it was predicted at.
            mask: of `masks`.
            colors: of the classes.
        """
        raise TypeError(f"task {self.name} has no masks")

    def picture_of(self, mask: NDArray[Any], colors: Sequence[Color]) -> Image.Image:
        """One of the `masks` as an image to be saved, whose pixels are labels. Raises TypeError unless `is_dense`."""
        raise TypeError(f"task {self.name} has no masks")
