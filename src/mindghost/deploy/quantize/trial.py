"""Forms of a network, measured: over the data path of validate.py, and against the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import tasks
from ...data import transforms
from ...evaluate.evaluator import Evaluator
from ...inference import formats
from ...inference.deployment import Deployment
from ...inference.network import of_exported
from ...runtime import Runtime
from ...tasks.task import Metrics
from .quantizer import Layer, Parts, as_file

log = logging.getLogger("mindghost")

_ROUNDS, _ROUND_SECONDS = 100, 20.0  # of the latency: at most


@dataclass(frozen=True)
class Variant:
    """A form of the network, and what was measured of it.

    Attributes:
        kind: "float32", "float16", or "int8" and a mode of the quantiser.
        parts: contents of its files.
        metrics: over the validation images.
        float_layers: those that an int8 form has in float.
    """

    kind: str
    parts: Parts
    metrics: Metrics
    float_layers: tuple[Layer, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(map(len, self.parts))


class Trial:
    """Evaluates variants on the validation split, over the data path of validate.py.

    Attributes:
        variants: those evaluated.
        samples: images of the split.
    """

    def __init__(self, deployed: Deployment, runtime: Runtime) -> None:
        """Raises UserError where the split cannot be read."""
        self._deployed, self._runtime = deployed, runtime
        self._split = tasks.of(runtime.config).open_split(runtime.config, "val", deployed.known_classes)
        self.samples = len(self._split)
        self.variants: list[Variant] = []

    def add(self, kind: str, parts: Parts, float_layers: Sequence[Layer] = ()) -> Variant:
        """Evaluate the files of a variant."""
        with as_file(formats.of(self._deployed.path), parts) as path:
            # Logits that are not finite are no error here: such a form is one that gets all images wrong.
            run = of_exported(replace(self._deployed, path=path))
            metrics = Evaluator(self._runtime, self._split, self._deployed.thresholds).outcomes(run).metrics()
        variant = Variant(kind, parts, metrics, tuple(float_layers))
        self.variants.append(variant)
        in_float = f", {len(float_layers)} layers in float" if float_layers else ""
        log.info(f"{kind}{in_float}: {metrics.summary()}")
        return variant

    def some_image(self, batch: int) -> NDArray[Any]:
        """The first image of the split, `batch` times, as the network gets it."""
        config = self._runtime.config
        pixels = transforms.as_rgb(self._split.read(0), config.in_channels)
        image = np.asarray(tasks.of(config).eval_transform(config)(pixels), np.float32)
        return np.repeat(image[np.newaxis], batch, axis=0)


def latency(paths: Sequence[Path], image: NDArray[Any]) -> dict[Path, float]:
    """Median milliseconds of a call in one thread. The files take turns, so that a busy machine slows all alike.

    With more threads, those of one file that wait for work would take time from the other.
    """
    runs = {path: formats.of(path).network(path, threads=1) for path in paths}
    times: dict[Path, list[float]] = {path: [] for path in paths}
    end = time.perf_counter() + _ROUND_SECONDS
    for run in runs.values():
        run(image)
    for _ in range(_ROUNDS):
        for path, run in runs.items():
            started = time.perf_counter()
            run(image)
            times[path].append(1e3 * (time.perf_counter() - started))
        if time.perf_counter() > end:
            break
    return {path: float(np.median(taken)) for path, taken in times.items()}
