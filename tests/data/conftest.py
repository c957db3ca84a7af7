"""Small image folders whose pixels say which image they are, and what is asked of their batches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.config import Config

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    # Two workers even where the tests are confined to one core.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def save_image(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256, 7)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """data_dir with 23 training, 7 validation images; the red channel of each is its index in the split."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 23), ("val", 7)):
        for index in range(count):
            name = CLASSES[index * len(CLASSES) // count]
            save_image(root / split / name / f"{index:03}.png", index)
    return root


def config_for(root: Path, **keys) -> Config:
    plain = {"hflip": 0.0, "color_jitter": None, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "image_resize": 8}
    as_read = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "crop_pct": 1.0}
    defaults = {"data_dir": str(root), "batch_size": 4, "num_parallel_workers": 1}
    return Config(**{**plain, **as_read, **defaults, **keys})


def indices(batch: np.ndarray) -> list[int]:
    """Which images of ``folder`` a batch holds."""
    return batch[:, 0, 0, 0].astype(int).tolist()


def epochs(batches, count: int = 1) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    iterator = batches.create_tuple_iterator(num_epochs=count, output_numpy=True)
    return [[(image.copy(), label.copy()) for image, label in iterator] for _ in range(count)]


def message_of(caught: pytest.ExceptionInfo, *parts: object) -> str:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message
