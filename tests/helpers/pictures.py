"""Folders of images, a folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


def write_images(root: Path, classes=CLASSES, train_images=6, val_images=3) -> Path:
    """Image folders whose classes differ in colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train_images), ("val", val_images)):
        for index, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = rng.integers(0, 80, (40, 48, 3)) + np.array([index * 25, 170 - index * 25, 60])
                Image.fromarray(np.uint8(pixels)).save(folder / f"{image}.png")
    return root


def save_image(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256, 7)).save(path)


def scene(rng: np.random.Generator, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture with structure at all sizes, as photos have it: blurred noise, coarse and fine."""
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        )
        for cells in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.uint8(np.average(layers, axis=0, weights=(4, 3, 2, 1))))
