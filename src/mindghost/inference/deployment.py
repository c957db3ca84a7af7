"""A network with what belongs to it, and its description: the JSON that an exported file carries, and its reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import Config, beside_weights
from ..data.class_names import checked
from ..data.imagenet import names as imagenet_names
from ..errors import UserError
from ..files import json_text
from ..runs.files import TEMPERATURE_KEY, Color, checked_colors, checked_temperature, checked_thresholds
from . import formats
from .formats import Step

# What of a configuration makes the network and its input.
KEYS = (
    "model",
    "num_classes",
    "in_channels",
    "dataset",
    "image_resize",
    "crop_pct",
    "interpolation",
    "mean",
    "std",
)
# The same, said only where it is not the default: files without them are of classifiers.
OTHERS = ("task", "backbone", "decoder_width", "upsampling", "channels", "quantize_aware")
# The second output of an exported file, in its graph and in its description.
EMBEDDING = "embedding"
_MOST_NUMBERS = 1 << 16  # of an embedding
# What of a description follows from the rest of it.
_CHECKED = {
    "model": ("model",),
    "input": ("name", "type", "shape"),
    "output": ("name", "type", "shape"),
    EMBEDDING: ("name", "type", "shape"),
    "preprocessing": ("color", "resize", "interpolation", "center_crop", "mean", "std"),
}
_CHANNELS_LAST = "NHWC"
_MOST_IMAGES = 4_096  # that a file takes at once; `mindghost export` writes none for more
AGAIN = "export it again with `mindghost export`"


@dataclass(frozen=True)
class Deployment:
    """A network with what belongs to it.

    Attributes:
        path: its weights, or the exported file.
        config: makes the network and its input; `num_classes` is settled.
        classes: names in label order, one for each of the network's outputs.
        batch: images that an exported file takes at once; None where it takes any number.
        numbered: no class has a name: `classes` are the labels themselves.
        thresholds: probabilities from which an answer is given, one an output (`Task.thresholds`); None where none are
            known.
        temperature: what logits are divided by before they become probabilities (`mindghost calibrate`); None for
            logits as they are.
        colors: of the outputs in pictures, for a task that has some.
        free_size: an exported file takes images of any height and width.
        channels_last: an exported file takes images, and gives maps, in the order (N, height, width, channels).
        embedding: length of the embeddings that an exported file gives beside its logits; None where it gives none.
        steps: how int8 stands for numbers in what an exported file takes and gives; None where that is float32.
    """

    path: Path
    config: Config
    classes: tuple[str, ...]
    batch: int | None = None
    numbered: bool = False
    thresholds: tuple[float, ...] | None = None
    colors: tuple[Color, ...] | None = None
    free_size: bool = False
    channels_last: bool = False
    embedding: int | None = None
    temperature: float | None = None
    steps: tuple[Step, Step] | None = None

    @property
    def exported(self) -> bool:
        """Whether the file is an exported one."""
        return formats.is_exported(self.path)

    def in_float32(self) -> Deployment:
        """The same, whatever the precision of evaluation is."""
        return replace(self, config=self.config.replace(val_amp_level="O0"))

    @property
    def known_classes(self) -> tuple[str, ...] | None:
        """The names that folders of images are compared with; None where none are known."""
        return None if self.numbered else self.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network gets."""
        from ..data import transforms

        return (self.config.in_channels, *transforms.input_size(self.config))

    @property
    def graph_shapes(self) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
        """Of what an exported file takes and gives, channels before height and width; None for a size that is free."""
        from .. import tasks

        channels, *size = self.input_shape
        pixels = [None, None] if self.free_size else size
        dense = pixels if tasks.of(self.config).is_dense else []
        return (self.batch, channels, *pixels), (self.batch, len(self.classes), *dense)

    def _shape(self, sizes: tuple[int | None, ...]) -> dict[str, Any]:
        """A shape as a description has it: with its order, where that is not the usual one."""
        if not self.channels_last or len(sizes) < 4:
            return {"shape": list(sizes)}
        images, channels, *pixels = sizes
        return {"shape": [images, *pixels, channels], "layout": _CHANNELS_LAST}

    def _described_embedding(self) -> dict[str, Any]:
        return {"name": EMBEDDING, "type": "float32", "shape": [self.batch, self.embedding]}

    @property
    def kind(self) -> str:
        """Type of what an exported file takes and gives."""
        return "float32" if self.steps is None else "int8"

    def _end(self, name: str, index: int) -> dict[str, Any]:
        """What a description says of the input, 0, or the output, 1."""
        said = {"name": name, "type": self.kind, **self._shape(self.graph_shapes[index])}
        if self.steps is not None:
            said |= {"scale": self.steps[index].scale, "zero_point": self.steps[index].zero}
        return said

    def describe(self) -> dict[str, Any]:
        """The description that exported files carry: `of_description` reads it, other programs may."""
        from .. import tasks
        from ..data import transforms

        config = self.config
        names = imagenet_names.shown_as(self.classes)
        return {
            "model": config.model,
            "classes": list(self.classes),
            # What people read in their place, where that is something else.
            **({"names": names} if names != list(self.classes) else {}),
            # Whether those are names, and not numbers in the place of names.
            "named": not self.numbered,
            "input": self._end("image", 0),
            "output": self._end("logits", 1),
            **({} if self.embedding is None else {"embedding": self._described_embedding()}),
            "preprocessing": {
                **tasks.of(config).describe_evaluation(config),
                "layout": transforms.layout(self.channels_last),
            },
            "config": {key: getattr(config, key) for key in KEYS} | others(config),
            **({} if self.thresholds is None else {"thresholds": list(self.thresholds)}),
            **({} if self.temperature is None else {TEMPERATURE_KEY: self.temperature}),
            **({} if self.colors is None else {"colors": list(map(list, self.colors))}),
        }


def others(config: Config) -> dict[str, Any]:
    """Values of `OTHERS` that are not the defaults."""
    return {key: value for key in OTHERS if (value := getattr(config, key)) != Config.default(key)}


def of_description(path: Path, description: Mapping[str, Any]) -> Deployment:
    """The reverse of `describe`. Raises UserError, which names `path`, where something is missing or wrong."""
    try:
        given = description["config"]
        keys = {key: tuple(v) if isinstance(v := given[key], list) else v for key in KEYS}
        keys |= {key: given[key] for key in OTHERS if key in given}
        config = Config(**keys, ckpt_path=str(path))
        names, (batch, *sizes) = description["classes"], description["input"]["shape"]
        channels_last = description["input"].get("layout") == _CHANNELS_LAST
        pixels = sizes[:-1] if channels_last else sizes[1:]
        steps = _steps(description["input"], description["output"])
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path}: its description does not fit ({type(error).__name__}: {error}); {AGAIN}") from error
    classes = tuple(checked(names, f"{path}: its description", AGAIN))
    problem = next(iter(beside_weights.oversized(config)), None)
    if problem:
        raise UserError(f"{path}: its description: {problem.keys[0]}: {problem.message}; {AGAIN}")
    if len(classes) != config.num_classes:
        raise UserError(f"{path}: {len(classes)} class names for {config.num_classes} outputs; {AGAIN}")
    if batch is not None and not (json_text.is_integer(batch) and 1 <= batch <= _MOST_IMAGES):
        raise UserError(
            f"{path}: its description: expected a batch of 1 to {_MOST_IMAGES:,} images, or null for any number, got "
            f"{str(batch)[:60]}; {AGAIN}"
        )
    numbered = description.get("named") is False and are_numbers(classes)
    thresholds, colors = None, palette(config, len(classes))
    source = f"{path}: its description"
    if "thresholds" in description:
        thresholds = checked_thresholds(description["thresholds"], len(classes), source, AGAIN)
    temperature = None
    if TEMPERATURE_KEY in description:
        temperature = checked_temperature(description[TEMPERATURE_KEY], source, AGAIN)
    if "colors" in description:
        colors = checked_colors(description["colors"], len(classes), source, AGAIN)
    found = Deployment(
        path,
        config,
        classes,
        batch,
        numbered,
        thresholds,
        colors,
        pixels == [None, None],
        channels_last,
        _length_of_embedding(path, description),
        temperature,
        steps,
    )
    _check_consistent(found, description)
    return found


def _length_of_embedding(path: Path, description: Mapping[str, Any]) -> int | None:
    """How long the embeddings are that a file gives; None where its description has none. Raises UserError."""
    if EMBEDDING not in description:
        return None
    said = description[EMBEDDING]
    shape = said.get("shape") if isinstance(said, dict) else None
    length = shape[-1] if isinstance(shape, list) and len(shape) == 2 else None
    if not json_text.is_integer(length) or not 1 <= length <= _MOST_NUMBERS:
        raise UserError(
            f"{path}: its description: an embedding of shape {str(shape)[:60]}, expected two sizes; {AGAIN}"
        )
    return length


def _steps(*ends: Mapping[str, Any]) -> tuple[Step, Step] | None:
    """How int8 stands for numbers in input and output, as a description says; None where they are no int8.

    Raises KeyError, TypeError or ValueError where it does not fit.
    """
    if [end.get("type") for end in ends] != ["int8", "int8"]:
        return None
    taken, given = (Step(end["scale"], end["zero_point"]) for end in ends)
    for step in (taken, given):
        if not (isinstance(step.scale, float) and 0 < step.scale < math.inf and json_text.is_integer(step.zero)):
            raise ValueError(f"no scale and zero_point: {step.scale!s:.60} and {step.zero!s:.60}")
    return taken, given


def _check_consistent(found: Deployment, description: Mapping[str, Any]) -> None:
    """Raise UserError where what a description says to other programs is not what it says to this one."""
    expected = found.describe()
    if "names" in description and description["names"] != expected.get("names"):
        raise UserError(
            f"{found.path}: its description contradicts itself: names are not those of its classes; {AGAIN}"
        )
    for part, keys in _CHECKED.items():
        if part not in expected:
            continue
        said, wanted = description.get(part), expected[part]
        if not isinstance(wanted, dict):
            said, wanted = {part: said}, {part: wanted}
        if not isinstance(said, dict):
            raise UserError(f"{found.path}: its description does not fit: it lacks {part!r}; {AGAIN}")
        for key in keys:
            # One that an older export did not have yet is no contradiction.
            if key in said and said[key] != wanted.get(key):
                raise UserError(
                    f"{found.path}: its description contradicts itself: {part} has {key} {str(said[key])[:60]}, but "
                    f"{str(wanted.get(key))[:60]} follows from the rest of it; {AGAIN}"
                )


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether the names are the labels themselves."""
    return tuple(classes) == tuple(map(str, range(len(classes))))


def palette(config: Config, outputs: int) -> tuple[Color, ...] | None:
    """Colours for so many outputs, where no file says others; None for a task without."""
    from .. import tasks

    found = tasks.of(config).palette(outputs)
    return None if found is None else tuple(found)
