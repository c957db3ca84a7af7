"""Labels as a list has them -> classes and labels of samples.

Names are sorted, as class folders are. Whole numbers (all labels of a list are) count the classes from 0, whether an
image has each of them or not. Classes that are known, of training or of `class_names`, have their order.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...process.display import some
from .. import labelled
from ..imagenet import names as imagenet_names
from .lines import cut, fail, is_bad_text, refuse_encoding

Written = str | tuple[str, ...]  # a label as a list has it, or several

MOST = 1_000_000  # no network has more classes
_MOST_LETTERS = 1_000  # of a name
_NAMES_SHOWN = 6
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_FRACTION = re.compile(r"-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?")
_WHOLE_NUMBERS = re.compile(r"[0-9]+(?:[ ,]+[0-9]+)+")
_SEPARATORS = ";|,"

log = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Known:
    """What is known of the classes before a list is read.

    Attributes:
        names: in label order, of `class_names`; numbers are their places.
        trained: in label order, of training; numbers are their places, unless these are numbers themselves.
        num_classes: the key.
        several: images may have several labels.
    """

    names: Sequence[str] | None = None
    trained: Sequence[str] | None = None
    num_classes: int | None = None
    several: bool = False


@dataclass(frozen=True)
class Labels:
    """The labels of the rows of a list.

    Attributes:
        file: the list.
        written: each label that there is -> its code.
        codes: int32 (n,), of each row.
        lines: number of each row's line, (n,).
    """

    file: Path
    written: Mapping[Written, int]
    codes: NDArray[Any]
    lines: NDArray[Any]

    def line(self, code: int) -> int:
        """The first line with a label; 1 where all its images are missing."""
        found = self.lines[self.codes == code]
        return int(found.min()) if len(found) else 1


def check(file: Path, line: int, label: Written, several: bool) -> None:
    """Raise UserError for a label, of the first line that has it, that is none."""
    for text in (label,) if isinstance(label, str) else label:
        if not text and not (several and isinstance(label, str)):
            fail(file, line, "an empty label; write it, or remove the line")
        if len(text) > _MOST_LETTERS:
            fail(file, line, f"a label of {len(text):,} letters: {cut(text)}")
        if is_bad_text(text):
            refuse_encoding(file, line)
    if not several and isinstance(label, tuple) and len(label) != 1:
        _refuse_several(file, line, label)


def settled(labels: Labels, known: Known) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Names of the classes in label order, and the rows' labels: int32 (n,), or float32 (n, classes) of several.

    Raises UserError for a label that is of no class.
    """
    if known.several:
        return _several(labels, known)
    texts = [label if isinstance(label, str) else label[0] for label in labels.written]
    if not (known.names or known.trained):
        _check_single(labels, texts)
    classes, places = _classes(labels, texts, labels.line, known)
    for code in sorted(set(range(len(texts))) - set(np.unique(labels.codes).tolist())):
        if not known.trained:
            fail(labels.file, 1, f"no image of the class {cut(texts[code])} is there; mend its paths, or remove it")
    return classes, np.array(places, np.int32)[labels.codes]


def _several(labels: Labels, known: Known) -> tuple[tuple[str, ...], NDArray[Any]]:
    parts = _parts(list(labels.written))
    length = _vector_length(parts)
    line_of: Callable[[int], int] = lambda _: labels.line(0)  # noqa: E731
    if length:
        wanted = known.names or known.trained
        if wanted and len(wanted) != length:
            fail(labels.file, labels.line(0), f"{length} numbers 0 or 1, one for each class; expected {len(wanted)}")
        texts = [str(number) for number in range(length)]
        parts = [tuple(texts[place] for place, text in enumerate(row) if text == "1") for row in parts]
    else:
        first: dict[str, int] = {}
        for code, row in enumerate(parts):
            for text in row:
                first.setdefault(text, code)
        texts, codes = list(first), list(first.values())
        line_of = lambda place: labels.line(codes[place])  # noqa: E731
    classes, places = _classes(labels, texts, line_of, known) if texts else (tuple(known.trained or ()), [])
    if not classes:
        fail(labels.file, labels.line(0), "no image has a label")
    place_of = dict(zip(texts, places, strict=True))
    rows = np.zeros((len(parts), len(classes)), np.float32)
    for code, row in enumerate(parts):
        rows[code, [place_of[text] for text in row]] = 1
    return classes, rows[labels.codes]


# --- Classes


def _classes(
    labels: Labels, texts: Sequence[str], line_of: Callable[[int], int], known: Known
) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, and the class of each of `texts`; `line_of(place)` is a line that has it."""
    file = labels.file
    numbers = _numbers(file, texts, line_of)
    wanted = known.names or known.trained
    if numbers is None:
        classes = tuple(wanted or sorted(set(texts)))
        return classes, _by_name(file, texts, line_of, classes)
    low = min(numbers)
    if low < 0:
        fail(file, line_of(numbers.index(low)), f"label {low}: numbers count the classes from 0")
    if known.trained and all(map(_INTEGER.fullmatch, known.trained)):
        _say(file, f"are taken as names of the known classes: {_listed(known.trained)}", known.trained)
        return tuple(known.trained), _by_name(file, [str(number) for number in numbers], line_of, known.trained)
    if wanted:
        if known.trained and not known.names:
            _say(file, f"count the known classes: {_listed(known.trained)}")
        classes = tuple(wanted)
    else:
        high = max(numbers)
        if high >= MOST:
            fail(file, line_of(numbers.index(high)), f"label {high}: no network has so many classes")
        classes = tuple(map(str, range(max(high + 1, known.num_classes or 0))))
        _say(file, f"count the network's outputs: {_listed(classes)}")
    most = min(len(classes), known.num_classes or len(classes))
    if (high := max(numbers)) >= most:
        shifted = f"; these run from 1 to {high}: subtract 1" if low == 1 and high == most else ""
        fail(
            file,
            line_of(numbers.index(high)),
            f"label {high}, where there are {most} classes: numbers count them from 0 to {most - 1}{shifted}",
        )
    return classes, numbers


def _numbers(file: Path, texts: Sequence[str], line_of: Callable[[int], int]) -> list[int] | None:
    """The labels as numbers; None where they are names."""
    found = [_INTEGER.fullmatch(text) for text in texts]
    if all(found):
        return [int(match[1]) for match in found if match]
    if all(map(_FRACTION.fullmatch, texts)) and any("." in text for text in texts):
        place = found.index(None)
        fail(file, line_of(place), f"label {texts[place]}: expected the name of a class, or a whole number")
    return None


def _by_name(file: Path, texts: Sequence[str], line_of: Callable[[int], int], classes: Sequence[str]) -> list[int]:
    label_of = {name: label for label, name in enumerate(classes)}
    if tuple(classes) == imagenet_names.synsets():
        texts = [imagenet_names.synset_of(text) or text for text in texts]
    for place, text in enumerate(texts):
        if text not in label_of:
            fail(
                file,
                line_of(place),
                f"label {cut(text)!r} is none of the {len(classes)} classes ({cut(some(classes))}); correct it, or "
                f"remove the line{labelled.look_alike([text], classes)}",
            )
    return [label_of[text] for text in texts]


def _say(file: Path, what: str, unless_sorted: Sequence[str] | None = None) -> None:
    if unless_sorted is None or list(map(int, unless_sorted)) != list(range(len(unless_sorted))):
        log.info(f"{file}: labels are numbers, which {what}")


def _listed(classes: Sequence[str]) -> str:
    return some([f"{label} {name}" if name != str(label) else name for label, name in enumerate(classes)], _NAMES_SHOWN)


# --- Several labels


def _check_single(labels: Labels, texts: Sequence[str]) -> None:
    """Raise UserError for a text that is several labels: by its separators, or since its parts are labels elsewhere."""
    parted = {text: set(_split(text, ",")) for text in texts if "," in text}
    times = Counter(part for parts in parted.values() for part in parts)
    times.update(set(texts))
    for code, text in enumerate(texts):
        parts = parted.get(text, set())
        joined = len(parts) > 1 and all(times[part] > 1 for part in parts)
        if ";" in text or "|" in text or joined or _WHOLE_NUMBERS.fullmatch(text):
            _refuse_several(labels.file, labels.line(code), text)


def _refuse_several(file: Path, line: int, label: Written) -> None:
    written = cut(label if isinstance(label, str) else ", ".join(label) or "none")
    fail(file, line, f"expected one label, got {written}; where images have several, set task: multi_label")


def _parts(written: Sequence[Written]) -> list[tuple[str, ...]]:
    """The labels in each of the texts, by what separates them: the first of ; | , that any of them has."""
    texts = [text for text in written if isinstance(text, str)]
    separator = next((sign for sign in _SEPARATORS if any(sign in text for text in texts)), "")
    if not separator and texts and all(map(_WHOLE_NUMBERS.fullmatch, texts)):
        separator = " "
    return [_split(text, separator) if isinstance(text, str) else text for text in written]


def _split(text: str, separator: str) -> tuple[str, ...]:
    parts = text.split(separator) if separator else [text]
    return tuple(part.strip() for part in parts if part.strip())


def _vector_length(parts: Sequence[tuple[str, ...]]) -> int:
    """How many numbers each row has, where all are 0 or 1, one for each class (PaddleClas's form); 0 for labels."""
    lengths = set(map(len, parts))
    if len(lengths) != 1 or max(lengths) < 2 or {text for row in parts for text in row} - {"0", "1"}:
        return 0
    return max(lengths)
