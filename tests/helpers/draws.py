"""Pictures, and random numbers that a test has scripted."""

from __future__ import annotations

import numpy as np
from PIL import Image


def photo(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """A smooth colour image: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Scripted:
    """A generator of random numbers whose draws are given; keeps what was asked for."""

    def __init__(self, *draws: object) -> None:
        self.draws, self.asked = list(draws), []

    def __getattr__(self, name: str):
        def draw(*arguments: object) -> object:
            self.asked.append((name, *arguments))
            return self.draws.pop(0)

        return draw


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    return rng().normal(size=(size, 3, 10, 12)).astype(np.float32), np.arange(size, dtype=np.int32) % 4
