"""What is asked of small image folders, whose pixels say which image they are."""

from pathlib import Path

import numpy as np
import pytest

from mindghost.config import Config

CLASSES = ("ant", "bee", "cat")


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


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])
