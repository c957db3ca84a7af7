"""A map of where a network saw something, drawn over its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# From little to much: dark blue, purple, red, orange, light yellow, which differ in brightness too; after matplotlib's
# "inferno".
_COLORS = np.array(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ]
)
# Share of the colour over the image: where there is nothing, and where there is most.
_LEAST, _MOST = 0.15, 0.7
# Share of its own colours that the image keeps, so that a yellow flower is not taken for a bright place of the map.
_COLORFUL = 0.4
# What is left of the brightness of pixels that the network did not get.
_UNSEEN = 0.5


def over(pixels: NDArray[Any], heat: NDArray[Any], box: tuple[float, float, float, float]) -> NDArray[Any]:
    """An image with a map over the part of it that the network got; the rest is darker. Its own size, and RGB.

    Args:
        pixels: uint8 (height, width, 1 or 3).
        heat: float (h, w), not negative; its largest value gets the brightest colour.
        box: top, left, bottom and right of what the network got, in pixels of the image (`transforms.seen_box`).
    """
    height, width = pixels.shape[:2]
    image = np.broadcast_to(pixels, (height, width, 3)).astype(np.float32)
    shares, inside = _stretched(heat, box, height, width)
    places = np.linspace(0, 1, len(_COLORS))
    colors = np.stack([np.interp(shares, places, _COLORS[:, channel]) for channel in range(3)], axis=-1)
    weight = (_LEAST + (_MOST - _LEAST) * shares)[..., None]
    pale = image * _COLORFUL + image.mean(axis=2, keepdims=True) * (1 - _COLORFUL)
    drawn = np.where(inside[..., None], pale * (1 - weight) + colors * weight, image * _UNSEEN)
    return np.rint(drawn).clip(0, 255).astype(np.uint8)


def _stretched(
    heat: NDArray[Any], box: tuple[float, float, float, float], height: int, width: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The map as shares of its largest value, for each pixel of an image, and which of these are inside of the box."""
    top, left, bottom, right = box
    largest = float(heat.max(initial=0))
    small = Image.fromarray((heat / largest if largest > 0 else heat).astype(np.float32))
    # Centre of each pixel -> place among the map's pixels, as both are grids over the box.
    scale_x, scale_y = heat.shape[1] / (right - left), heat.shape[0] / (bottom - top)
    # Beyond the centres of its outer pixels, the map goes on as it is there.
    padded = np.pad(np.asarray(small), 1, mode="edge")
    grid = (scale_x, 0, 1 - left * scale_x, 0, scale_y, 1 - top * scale_y)
    stretched = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, grid, Image.Resampling.BILINEAR
    )
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[None]
    return np.asarray(stretched, np.float64).clip(0, 1), inside
