"""Pictures of the worst images: each with its true classes, those it was given, and where these differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....runs.files import Color
from ...report.pictures import Captioned, fit, image_sheet
from ..show import painted
from ..worst import Kept, small

if TYPE_CHECKING:
    from ..samples import MaskSamples

# Of a pixel that is wrong, and of the two stripes of those that do not count.
WRONG: Color = (255, 70, 0)
STRIPES = (232, 184)
TITLES = ("image", "truth", "prediction", "errors")
_STRIPE, _GAP = 4, 8  # pixels
_LETTERS = 110  # of a line below the panels


@dataclass(frozen=True)
class Panels:
    """What is shown of an image.

    Attributes:
        name: of the image: its path.
        kept: what a network made of it.
        pictures: uint8 (height, width, 3) each, of one size: see TITLES.
    """

    name: str
    kept: Kept
    pictures: tuple[NDArray[Any], ...]

    @classmethod
    def of(cls, kept: Kept, samples: MaskSamples, colors: Sequence[Color]) -> Panels:
        """The panels of one of the samples. Raises UserError where its image or its mask cannot be read."""
        mask = samples.mask(kept.place)
        counts = small((mask != samples.ignored).astype(np.uint8)).astype(bool)
        true = small(np.where(mask == samples.ignored, 0, mask))
        height, width = kept.predicted.shape
        image = Image.fromarray(_rgb(samples.read(kept.place))).resize((width, height), Image.Resampling.BOX)
        dim = np.asarray(image.convert("L").convert("RGB")) // 2
        striped = np.add(*np.indices((height, width))) // _STRIPE % 2
        ignored = np.array(STRIPES, np.uint8)[striped][..., np.newaxis].repeat(3, axis=2)
        wrong = (true != kept.predicted)[..., np.newaxis]
        shown = painted(true, colors), np.where(wrong, np.array(WRONG, np.uint8), dim)
        truth, errors = (np.where(counts[..., np.newaxis], picture, ignored) for picture in shown)
        return cls(samples.name(kept.place), kept, (np.asarray(image), truth, painted(kept.predicted, colors), errors))

    def lines(self, names: Sequence[str]) -> tuple[str, str]:
        """How much of it is right, and its most frequent mistakes."""
        numbers = f"{100 * self.kept.accuracy:.1f} % of the pixels are right, mIoU {100 * self.kept.miou:.1f} %"
        mistakes = (f"{names[true]} taken for {names[taken]}" for true, taken, _ in self.kept.mistakes)
        return numbers, "; ".join(mistakes)


def _rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def sheet(shown: Sequence[Panels], names: Sequence[str]) -> bytes:
    """The panels of all images, one image below the other."""
    images = []
    for panels in shown:
        numbers, mistakes = panels.lines(names)
        file = f"{fit(os.path.basename(panels.name), _LETTERS)}: {', '.join(TITLES)}"
        lines = ((numbers, "black"), (fit(mistakes, _LETTERS), "tab:red"), (file, "grey"))
        images.append(Captioned(_row(panels.pictures), lines))
    return image_sheet(images, "Every pixel was given its class.", True)


def _row(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Pictures of one size side by side, with white between them."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    first, *others = pictures
    return np.hstack([first, *(part for picture in others for part in (gap, picture))])
