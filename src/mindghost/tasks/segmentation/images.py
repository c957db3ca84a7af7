"""The images of folders that have masks, too: those that are looked at without them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import Config
from ...data import images, walk
from ...errors import UserError
from . import layouts
from .samples import pairs


def some(config: Config, split: str, count: int) -> list[NDArray[Any]]:
    """Up to `count` readable images of a split, uint8 (h, w, 3), evenly spaced over it; see `Task.some_images`."""
    found: list[NDArray[Any]] = []
    with contextlib.suppress(UserError):
        chosen = pairs(config, split)
        for index in np.linspace(0, len(chosen.images) - 1, min(count, len(chosen.images))).astype(int):
            with contextlib.suppress(UserError):
                found.append(images.read_image(str(chosen.root / chosen.images[index])))
    return found


def below(folder: Path) -> list[str]:
    """The image files in a folder or below it, without masks: those of its training split, if it has one.

    Raises UserError for a layout that is damaged.
    """
    found = layouts.split(folder, "train") or layouts.whole(folder)
    if found is None:
        return walk.image_files(folder)
    return [str(found.root / image) for image in (*found.images, *found.missing)]
