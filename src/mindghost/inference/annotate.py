"""Predictions drawn into their pictures."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..process.display import shown
from .predictor import Prediction

# Of an annotated picture, in pixels.
_MIN_WIDTH, _LINE, _MARGIN = 320, 20, 6
_LONGEST = 4096  # that enlarging may make of its longer side
_LONGEST_STEM = 240  # bytes


def annotate(prediction: Prediction) -> Image.Image:
    """The picture with a line for each guess below it; small pictures are enlarged."""
    picture = Image.fromarray(prediction.pixels)
    factor = max(1, min(-(-_MIN_WIDTH // picture.width), _LONGEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    height = len(prediction.guesses) * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (max(picture.width, _MIN_WIDTH), picture.height + height), "white")
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, guess in enumerate(prediction.guesses):
        top = picture.height + _MARGIN + row * _LINE
        # A bar as long as the probability, behind the text.
        draw.rectangle((0, top, round(guess.probability * sheet.width), top + _LINE - 3), fill=(190, 215, 245))
        # Pillow's own font has Latin letters only.
        name = shown(guess.name).encode("latin-1", "replace").decode("latin-1")
        draw.text((_MARGIN, top + 2), f"{guess.probability:6.1%}  {name}", fill="black", font=font)
    return sheet


def picture_name(image: str, taken: set[str]) -> str:
    """A file name for the annotated picture of an image, other than those taken, to which it is added."""
    path = Path(image)
    stem = path.stem if "#" not in path.suffix else f"{path.stem}_{path.suffix.partition('#')[2]}"
    # Room for a number and another ending, in bytes, of which a name has 255 at the most.
    stem = os.fsdecode(os.fsencode(stem)[:_LONGEST_STEM])
    names = itertools.chain([f"{stem}.png"], (f"{stem}_{count}.png" for count in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
