"""Pictures of a report as PNG files: sheets of captioned images, and what fits under them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ...files import figures

DPI = 100
# The image sheet; pixels of a picture's longer side, beside and below it.
COLUMNS, THUMBNAIL, BESIDE, BELOW = 6, 160, 50, 66


class Captioned(NamedTuple):
    """An image of a sheet: uint8 pixels (height, width, 1 or 3), and lines of text with matplotlib's colours."""

    pixels: NDArray[Any]
    lines: Sequence[tuple[str, str]]


def as_png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """The PNG file of the figure that a function draws."""

    @wraps(draw)
    def png(*arguments: Any) -> bytes:
        return figures.png(lambda: draw(*arguments), bbox_inches="tight", pad_inches=0.12)

    return png


@as_png
def image_sheet(images: Sequence[Captioned], otherwise: str, as_they_are: bool = False) -> Figure:
    """Images with their lines below them, or a sentence where there is none.

    `as_they_are`: one below the other, in their own sizes.
    """
    if not images:
        figure = Figure((6, 1), DPI)
        figure.text(0.5, 0.5, otherwise, ha="center", va="center", fontsize=12)
        return figure
    pictures = [Image.fromarray(image.pixels) if as_they_are else thumbnail(image.pixels) for image in images]
    columns = 1 if as_they_are else min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    height = max(picture.height for picture in pictures)
    width = max(picture.width for picture in pictures) if as_they_are else THUMBNAIL
    figure = Figure((columns * (width + BESIDE) / DPI, rows * (height + BELOW) / DPI), DPI)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1, wspace=BESIDE / width, hspace=BELOW / height)
    for axes in grid.flat:
        axes.set_axis_off()
    # Fewer pictures than places leave the last ones empty.
    for axes, image, picture in zip(grid.flat, images, pictures, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_anchor("S")
        for number, (text, color) in enumerate(image.lines):
            place, size = (0, -3 - 11 * number), 7 if color == "grey" else 8
            look = {"ha": "center", "va": "top", "fontsize": size, "color": color}
            axes.annotate(text, (0.5, 0), place, "axes fraction", "offset points", **look)
    return figure


def thumbnail(pixels: NDArray[Any]) -> Image.Image:
    """An image (height, width, 1 or 3), uint8, whose longer side has THUMBNAIL pixels; small ones keep hard edges."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    factor = THUMBNAIL / max(image.size)
    width, height = (max(1, round(factor * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if factor > 2 else Image.Resampling.LANCZOS)


def percent(probability: float) -> str:
    """A probability for people: three digits."""
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else f"{100 * probability:.0e} %"


def fit(text: str, letters: int) -> str:
    """A name that is at most so many Latin letters wide: cut in the middle, since names often differ at their ends."""
    text = figures.label(text)
    if text_width(text) <= letters:
        return text
    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if text_width(head + first + tail) >= letters:
            break
        head += first
        if text_width(head + last + tail) >= letters:
            break
        tail = last + tail
    return f"{head}…{tail}"


def text_width(text: str) -> int:
    """Width in Latin letters: Chinese, Japanese and Korean signs take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
