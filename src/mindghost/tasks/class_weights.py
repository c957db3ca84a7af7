"""What the key `class_weights` says, as numbers: those given, those of a file, or balanced ones."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..data.samples import Samples
from ..errors import UserError
from ..files import json_text, paths
from ..files.text import decoded
from ..process.display import some

log = logging.getLogger("mindghost")

_REMEDY = (
    "give a JSON list of numbers in label order, a JSON map of class names to numbers, or lines of name and number"
)
# What the first line of a table is called.
_HEADINGS = {"class", "name", "label", "class_name"}


def settled(config: Config, samples: Samples) -> Config:
    """The configuration with a number for each output in `class_weights`, where the key is set.

    Args:
        config: with its number of outputs; `class_weights` may be numbers, the path of a file, or "balanced".
        samples: the whole training split.

    Raises UserError where there are not as many numbers as classes, one is negative, all are 0, a class has none or is
    not known, or the file cannot be read.
    """
    given, outputs = config.class_weights, config.num_classes or len(samples.classes)
    if given is None:
        return config
    if given == "balanced":
        weights: Sequence[float] = balanced(samples.labels, outputs)
    elif isinstance(given, str):
        weights = _of_file(Path(given), samples.classes, outputs)
    else:
        # Of a network with more outputs than the data has classes, those of the classes are enough.
        missing = outputs - len(samples.classes)
        filled = (*given, *[1.0] * missing) if len(given) == len(samples.classes) else given
        weights = _checked(filled, outputs, "class_weights")
    return by_rule(config, samples, weights) if isinstance(given, str) else config.replace(class_weights=tuple(weights))


def by_rule(config: Config, samples: Samples, weights: Sequence[float]) -> Config:
    """The configuration with these `class_weights`, which follow from what the key says; a line says their range."""
    named = list(zip(weights, samples.classes, strict=False))
    (low, first), (high, last) = min(named), max(named)
    log.info(f"class_weights: {config.class_weights}: from {low:.4g} ({first}) to {high:.4g} ({last})")
    return config.replace(class_weights=tuple(weights))


def balanced(labels: NDArray[Any], outputs: int) -> list[float]:
    """Labels / (classes x labels of the class), for each output; 1 for one that has no image.

    Each label counts once: of images with one class, that is scikit-learn's `compute_class_weight`.

    Args:
        labels: integers (n,), or 1 for each label that an image has, (n, classes).
        outputs: of the network, as many as classes or more.
    """
    counts = np.zeros(outputs)
    found = np.bincount(labels) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.float64)
    counts[: len(found)] = found
    classes = np.count_nonzero(counts)
    return [counts.sum() / (classes * count) if count else 1.0 for count in counts.tolist()]


def _checked(weights: Sequence[float], outputs: int, source: str) -> Sequence[float]:
    if len(weights) != outputs:
        raise UserError(f"{source}: {len(weights)} number(s) for {outputs} classes; give one for each, in label order")
    for label, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{source}: label {label}: expected a number >= 0, got {weight:g}")
    if not sum(weights) > 0:
        raise UserError(f"{source}: all are 0, so that nothing would be learnt; give a class a number above 0")
    return weights


def _of_file(path: Path, classes: Sequence[str], outputs: int) -> Sequence[float]:
    paths.check_file(path, "give numbers, the path of a file, or balanced", "class_weights")
    text = decoded(path, paths.read(path, _REMEDY, json_text.MOST_BYTES))
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{"):
        value = json_text.parse(text, path, _REMEDY)
        if isinstance(value, list) and all(map(json_text.is_number, value)):
            return _checked(value, outputs, str(path))
        if not (isinstance(value, dict) and value and all(map(json_text.is_number, value.values()))):
            raise UserError(f"{path}: expected a list of numbers, or a map of class names to numbers; {_REMEDY}")
        named = value
    else:
        named = dict(_lines(path, text))
        if not named:
            raise UserError(f"{path}: empty; {_REMEDY}")
    return _checked(_in_order(path, named, classes, outputs), outputs, str(path))


def _lines(path: Path, text: str) -> Iterator[tuple[str, float]]:
    """Name and number of each line; raises UserError, which names the line."""
    seen: set[str] = set()
    comma = path.suffix.lower() == ".csv"
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = next(csv.reader([line], strict=True)) if comma else line.strip().rsplit(None, 1)
        except csv.Error as error:
            raise UserError(f"{path}: line {number}: {error}; {_REMEDY}") from error
        name = cells[0].strip()
        weight = _number(cells[1]) if len(cells) == 2 else None
        if weight is None:
            if not seen and name.lower() in _HEADINGS:
                continue
            raise UserError(f"{path}: line {number}: expected a class name and a number, got {line.strip()[:60]!r}")
        if name in seen:
            raise UserError(f"{path}: line {number}: {name[:60]!r} has a number already; give each class one")
        seen.add(name)
        yield name, weight


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _in_order(path: Path, named: Mapping[str, float], classes: Sequence[str], outputs: int) -> list[float]:
    """The numbers in label order; outputs beyond the classes, which no image has, get 1."""
    unknown = [name for name in named if name not in set(classes)]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} name(s) that no class has: {some(unknown)}; the classes are {some(classes)}"
        )
    missing = [name for name in classes if name not in named]
    if missing:
        raise UserError(f"{path}: no number for {len(missing)} of the {len(classes)} classes: {some(missing)}; add it")
    return [*(float(named[name]) for name in classes), *[1.0] * (outputs - len(classes))]
