"""Small images with masks: textures with rectangles in them, one colour and one class for each."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = ((40, 40, 40), (220, 60, 60), (60, 60, 220))


def scene(seed: int, size: tuple[int, int] = (40, 56), classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (height, width, 3), and its mask, uint8 (height, width): the background is class 0."""
    rng = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    for label in range(1, classes):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[top : top + height // 3, left : left + width // 3] = label
    return np.uint8(np.array(COLORS)[mask] + rng.integers(0, 30, (*size, 3))), mask


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        # Colours that are no classes: who reads them reads wrong.
        image.putpalette([value for index in range(256) for value in (255 - index, 7, index)])
    image.save(path)
    return path


def write_scenes(root: Path, train: int = 8, val: int = 3, border: bool = True) -> Path:
    """`root/{train,val}/{images,masks}`, of two sizes; a column of pixels is ignored."""
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            pixels, mask = scene(1000 * len(split) + index, (40, 56) if index % 3 else (50, 45))
            if border:
                mask[:, 0] = 255
            save(root / split / "images" / f"{index}.png", pixels)
            save(root / split / "masks" / f"{index}.png", mask, palette=index % 2 == 0)
    return root
