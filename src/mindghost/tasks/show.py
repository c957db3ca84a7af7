"""Answers of a network, and a picture of an image with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..process.display import shown
from ..runs.files import Color

# Of an annotated picture, in pixels.
_MIN_WIDTH, _LINE, _MARGIN, _SWATCH = 320, 20, 6, 24
_LONGEST = 4096  # that enlarging may make of its longer side
# What is said of an image that gets no answer.
NONE = "none"


@dataclass(frozen=True)
class Guess:
    """A class that an image may show, or that some of its pixels have.

    Attributes:
        label: index among the network's outputs.
        name: of the class.
        probability: that it does; or the share of the pixels; from 0 to 1.
    """

    label: int
    name: str
    probability: float


def draw(pixels: NDArray[Any], answers: Sequence[Guess], colors: Sequence[Color] | None = None) -> Image.Image:
    """The picture, uint8 (height, width, 3), with a line a guess below it, or NONE; small pictures are enlarged.

    `colors`: of the guesses, if they are shown.
    """
    picture = Image.fromarray(pixels)
    factor = max(1, min(-(-_MIN_WIDTH // picture.width), _LONGEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    height = max(1, len(answers)) * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (max(picture.width, _MIN_WIDTH), picture.height + height), "white")
    sheet.paste(picture, (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    if not answers:
        pen.text((_MARGIN, picture.height + _MARGIN + 2), NONE, fill="black", font=font)
    for row, guess in enumerate(answers):
        top = picture.height + _MARGIN + row * _LINE
        # A bar as long as the probability, behind the text.
        pen.rectangle((0, top, round(guess.probability * sheet.width), top + _LINE - 3), fill=(190, 215, 245))
        # Pillow's own font has Latin letters only.
        name = shown(guess.name).encode("latin-1", "replace").decode("latin-1")
        left = _MARGIN
        if colors is not None:
            pen.rectangle((left, top + 1, left + _SWATCH, top + _LINE - 4), fill=colors[row], outline="grey")
            left += _SWATCH + _MARGIN
        pen.text((left, top + 2), f"{guess.probability:6.1%}  {name}", fill="black", font=font)
    return sheet
