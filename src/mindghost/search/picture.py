"""Pictures of what was found: a row for each query, the query first, its neighbours with their scores behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..data import images
from ..errors import UserError
from ..files import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _INCHES, _TITLE_INCHES, _DPI = 160, 1.7, 0.5, 100
_MOST_ROWS, _MOST_COLUMNS = 40, 20
_LETTERS = 22  # of a name below a picture
# Of a picture that is not there any more.
_MISSING = np.full((_SIDE, _SIDE, 3), 225, np.uint8)


@dataclass(frozen=True)
class Neighbour:
    """An image that is like a query.

    Attributes:
        path: of the image.
        score: inner product of the two vectors, from -1 to 1: 1 of equal ones.
        label, name: its class; -1 and empty where it is not known.
    """

    path: str
    score: float
    label: int = -1
    name: str = ""


@dataclass(frozen=True)
class Found:
    """What was found for a query.

    Attributes:
        image: path of the query.
        neighbours: the nearest first; none where the query cannot be read.
        problem: why it cannot be read, in one line; empty otherwise.
    """

    image: str
    neighbours: tuple[Neighbour, ...]
    problem: str = ""


def png(found: Sequence[Found]) -> bytes:
    """The picture, of the first queries and neighbours where there are many. Raises UserError without matplotlib."""
    figures.check()
    readable = [each for each in found if not each.problem][:_MOST_ROWS]
    return figures.png(lambda: _draw(readable), dpi=_DPI)


def _draw(found: Sequence[Found]) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 + min(max((len(each.neighbours) for each in found), default=0), _MOST_COLUMNS)
    rows = max(1, len(found))
    figure = Figure(figsize=(columns * _INCHES, rows * (_INCHES + _TITLE_INCHES)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    for line, each in zip(axes, found, strict=False):
        _show(line[0], each.image, "query")
        for place, neighbour in zip(line[1:], each.neighbours, strict=False):
            kind = f"  {neighbour.name}" if neighbour.name else ""
            _show(place, neighbour.path, f"{neighbour.score:.4f}{kind}")
    return figure


def _show(axes: Any, path: str, title: str) -> None:
    pixels, note = thumbnail(path)
    axes.imshow(pixels)
    axes.set_title(figures.label(_short(title)), fontsize=8)
    name = _short(path.rsplit("/", 1)[-1], from_the_end=True)
    axes.text(0.5, -0.03, figures.label(note or name), transform=axes.transAxes, ha="center", va="top", fontsize=7)


def _short(text: str, from_the_end: bool = False) -> str:
    if len(text) <= _LETTERS:
        return text
    return f"…{text[1 - _LETTERS :]}" if from_the_end else f"{text[: _LETTERS - 1]}…"


def thumbnail(path: str) -> tuple[NDArray[Any], str]:
    """A small square with an image in it, uint8 (side, side, 3), and what to say where it cannot be read."""
    try:
        picture = Image.fromarray(images.read_image(path, upright=True))
    except UserError:
        return _MISSING, "(cannot be read)"
    picture = ImageOps.contain(picture, (_SIDE, _SIDE))
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - picture.height) // 2, (_SIDE - picture.width) // 2
    square[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    return square, ""
