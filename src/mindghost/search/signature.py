"""What an image looks like, in few numbers: those of a resized, recompressed or mirrored copy are nearly the same.

A perceptual hash (DCT hash, "pHash") keeps one bit of each of the lowest waves of a small grey picture. Here the waves
keep their strength, so that two images are compared by the cosine between all of them, which parts copies from images
that are merely alike much better than 64 bits do (docs/search.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

SIDE = 32  # pixels of the small picture
_WAVES = 12  # along each side: finer ones do not survive small copies
# The strength of natural images falls with the frequency; this makes the fine waves count nearly as much.
_EMPHASIS = 0.75
# Levels of contrast below which an image is taken for one colour: the noise of a JPEG file is no structure.
_FLAT = 1.0
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Lines that are skipped while a large picture is made small, which costs little and saves most of the time.
_GAP = 3.0
# A mirrored copy is called so where that explains it better by this much: a symmetric image is its own mirror image.
_CLEARLY = 0.005


@dataclass(frozen=True, eq=False)
class Signatures:
    """What images look like. The cosine of two is `even @ even' + odd @ odd'`; of one mirrored, `even - odd`.

    Attributes:
        even: float32, (n, 73): waves that are the same in the mirror image, and what stands for one colour.
        odd: float32, (n, 72): waves that change their sign in it.
        colours: float32, (n, 3): mean of each channel, 0 to 255.
    """

    even: NDArray[Any]
    odd: NDArray[Any]
    colours: NDArray[Any]

    def __len__(self) -> int:
        return len(self.even)

    @classmethod
    def joined(cls, parts: Sequence[Signatures]) -> Signatures:
        """Parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("even", "odd", "colours")))

    def take(self, indices: NDArray[Any]) -> Signatures:
        """Some of them, in the order of `indices`."""
        return Signatures(self.even[indices], self.odd[indices], self.colours[indices])

    def likeness(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The cosine of each of some images with each of others, the larger of as it is and mirrored, float32."""
        found: NDArray[Any] = self.odd[rows] @ self.odd[columns].T
        np.abs(found, out=found)
        found += self.even[rows] @ self.even[columns].T
        return found

    def mirrored(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """Whether the second of each pair looks like the mirror image of the first, and clearly less like it; bool."""
        return np.einsum("ij,ij->i", self.odd[first], self.odd[second]) < -_CLEARLY

    def colour_distance(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """How far the mean colours of each pair are apart, mean of the channels, 0 to 255."""
        return np.abs(self.colours[first] - self.colours[second]).mean(axis=1)


def small(pixels: NDArray[Any]) -> NDArray[Any]:
    """A picture of `SIDE` x `SIDE` pixels, uint8 (side, side, 3), of one of any size, uint8 (h, w, 1 or 3)."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=_GAP))


def of(pictures: NDArray[Any]) -> Signatures:
    """The signatures of small pictures, uint8 (n, side, side, 3)."""
    levels = pictures.astype(np.float32)
    waves = fft.dctn(levels @ _LUMINANCE, axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES] / SIDE
    vertical, horizontal = np.indices((_WAVES, _WAVES))
    # The mean has the frequency 0, and is left out by that.
    waves = waves * np.hypot(vertical, horizontal).astype(np.float32) ** _EMPHASIS
    count = len(pictures)
    even = np.concatenate([waves[:, :, ::2].reshape(count, -1), np.full((count, 1), _FLAT, np.float32)], axis=1)
    odd = np.ascontiguousarray(waves[:, :, 1::2]).reshape(count, -1)
    length = np.sqrt((even**2).sum(axis=1) + (odd**2).sum(axis=1))[:, np.newaxis]
    return Signatures(even / length, odd / length, levels.mean(axis=(1, 2)))
