"""How fast files are: each by its runtime, in turns, so that what else the machine does slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...inference import artifact
from ...inference.batches import in_batches
from ...inference.formats import Network, of

_FEWEST, _MOST = 5, 200  # calls of a file


@dataclass(frozen=True)
class Speed:
    """Of one file.

    Attributes:
        median, p90: milliseconds of a call for one image.
        images_per_second: of calls for many images, by their median.
    """

    median: float
    p90: float
    images_per_second: float


def take(files: Sequence[Path], threads: int, batch: int, seconds: float) -> list[Speed]:
    """The speed of files, which take turns.

    Args:
        files: exported ones.
        threads: of each runtime.
        batch: images of a call for many.
        seconds: that all of it may take, half of them for one image and half for many.
    """
    networks = [_network(file, threads) for file in files]
    shapes = [artifact.of_file(file).input_shape for file in files]
    one, many = (
        _times([_call(network, shape, count) for network, shape in zip(networks, shapes, strict=True)], seconds / 2)
        for count in (1, batch)
    )
    return [
        Speed(float(np.median(single)), float(np.percentile(single, 90)), 1e3 * batch / float(np.median(all_at_once)))
        for single, all_at_once in zip(one, many, strict=True)
    ]


def _network(file: Path, threads: int) -> Network:
    network, batch = of(file).network(file, threads), artifact.of_file(file).batch
    return network if batch is None else in_batches(network, batch)


def _call(network: Network, shape: tuple[int, int, int], count: int) -> Callable[[], NDArray[Any]]:
    images = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return lambda: network(images)


def _times(calls: Sequence[Callable[[], NDArray[Any]]], seconds: float) -> list[list[float]]:
    """Milliseconds of each call, round after round; the first of each, which compiles, is not among them."""
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    for number in range(_MOST):
        if number >= _FEWEST and time.perf_counter() > end:
            break
        for call, times in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - started))
    return taken
