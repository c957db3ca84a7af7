"""Pictures of what was found: rows of images with a line above and below each, such as a query and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Tile:
    """An image of a sheet.

    Attributes:
        title: what stands above it.
        name: what stands below it; of a path the last part.
        read: its pixels, uint8 (h, w, 1 or 3). It raises UserError where they cannot be read.
    """

    title: str
    name: str
    read: Callable[[], NDArray[Any]]


def png(found: Sequence[Found]) -> bytes:
    """The picture, of the first queries and neighbours where there are many. Raises UserError without matplotlib."""
    readable = [each for each in found if not each.problem][:_MOST_ROWS]
    return sheet([[tile_of(each.image, "query"), *map(_neighbour, each.neighbours)] for each in readable])


def _neighbour(found: Neighbour) -> Tile:
    return tile_of(found.path, f"{found.score:.4f}{f'  {found.name}' if found.name else ''}")


def tile_of(path: str, title: str) -> Tile:
    """An image file as a part of a sheet."""
    return Tile(title, path, lambda: images.read_image(path, upright=True))


def sheet(rows: Sequence[Sequence[Tile]]) -> bytes:
    """A PNG picture of rows of images, of the first ones where there are many. Raises UserError without matplotlib."""
    figures.check()
    return figures.png(lambda: _draw([row[: 1 + _MOST_COLUMNS] for row in rows[:_MOST_ROWS]]), dpi=_DPI)


def _draw(rows: Sequence[Sequence[Tile]]) -> Figure:
    from matplotlib.figure import Figure

    columns, height = max(map(len, rows), default=1), max(1, len(rows))
    figure = Figure(figsize=(columns * _INCHES, height * (_INCHES + _TITLE_INCHES)), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    for line, row in zip(axes, rows, strict=False):
        for place, tile in zip(line, row, strict=False):
            _show(place, tile)
    return figure


def _show(axes: Any, tile: Tile) -> None:
    pixels, note = thumbnail(tile)
    axes.imshow(pixels)
    axes.set_title(figures.label(_short(tile.title)), fontsize=8)
    name = _short(tile.name.rsplit("/", 1)[-1], from_the_end=True)
    axes.text(0.5, -0.03, figures.label(note or name), transform=axes.transAxes, ha="center", va="top", fontsize=7)


def _short(text: str, from_the_end: bool = False) -> str:
    if len(text) <= _LETTERS:
        return text
    return f"…{text[1 - _LETTERS :]}" if from_the_end else f"{text[: _LETTERS - 1]}…"


def thumbnail(tile: Tile) -> tuple[NDArray[Any], str]:
    """A small square with an image in it, uint8 (side, side, 3), and what to say where it cannot be read."""
    try:
        pixels = tile.read()
    except UserError:
        return _MISSING, "(cannot be read)"
    picture = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    picture = ImageOps.contain(picture, (_SIDE, _SIDE))
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - picture.height) // 2, (_SIDE - picture.width) // 2
    square[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    return square, ""
