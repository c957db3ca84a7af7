"""Class activation maps: of a layer's maps and the gradient of a logit; and those of a network that is a program.

LayerCAM: Jiang et al., 2021, Exploring Hierarchical Class Activation Maps for Localization,
https://doi.org/10.1109/TIP.2021.3089943. Grad-CAM: Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.plan.gradient import Rest
from ..ops.plan.native import NativePlan
from ..ops.plan.program import Finished

# Images at once: what a gradient needs is kept of all of them.
MOST = 16
# Values of maps that NumPy goes through while they stay in the cache.
_CACHED = 1 << 18
# Pixels of a map with fewer of which nobody sees where something is.
_FEWEST_PIXELS = 16


def layer_cam(maps: NDArray[Any], gradients: NDArray[Any]) -> NDArray[Any]:
    """The sum of the maps, each pixel weighed by its own gradient where that is positive: (N, C, h, w) -> (N, h, w)."""
    return np.maximum((np.maximum(gradients, 0) * maps).sum(axis=1), 0)


def grad_cam(maps: NDArray[Any], gradients: NDArray[Any]) -> NDArray[Any]:
    """The sum of the maps, each weighed by the mean of its gradient, where that is positive: (N, h, w)."""
    return np.maximum((gradients.mean(axis=(2, 3), keepdims=True) * maps).sum(axis=1), 0)


# Name, as `--explain_method` takes it -> (maps, gradients) -> (N, h, w), not negative.
METHODS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "layercam": layer_cam,
    "gradcam": grad_cam,
}


class Explaining(ABC):
    """A network that says of each image what it is, and where it saw that.

    Args:
        layer: name of the cell whose maps are taken.
        size: height and width of these maps.
        image: channels, height and width of the network's input.
        method: of `METHODS`.
        reductions: names of cells, those with finer maps first -> pixels of the image along one side for a pixel of
            their maps.

    Attributes:
        layer, size: as given.
    """

    def __init__(
        self, layer: str, size: tuple[int, int], image: tuple[int, int, int], method: str, reductions: dict[str, int]
    ) -> None:
        self.layer, self.size = layer, size
        self._image, self._combine, self._reductions = image, METHODS[method], reductions

    def __call__(self, images: NDArray[Any], labels: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Logits and maps of images.

        Args:
            images: (N, C, H, W) float32.
            labels: of each, the class to look for, int (N,); None for the likeliest one.

        Returns logits, float32 (N, classes), and maps, float32 (N, h, w), which are not negative.
        """
        wanted = np.full(len(images), -1) if labels is None else labels
        found = [(logits, self._combine(maps, gradients)) for logits, maps, gradients in self._parts(images, wanted)]
        logits, heats = zip(*found, strict=True)
        return np.concatenate(logits), np.concatenate(heats)

    @abstractmethod
    def _parts(self, images: NDArray[Any], labels: NDArray[Any]) -> Iterable[tuple[NDArray[Any], ...]]:
        """Logits (n, classes), maps and gradients (n, C, h, w) of some of the images after the others.

        A label below 0 stands for the likeliest class.
        """

    def notes(self) -> list[str]:
        """A line where the maps are so small that they hardly say where something is."""
        height, width = self.size
        if height * width >= _FEWEST_PIXELS:
            return []
        pixels = self._image[1] * self._image[2]
        finer = [name for name, side in self._reductions.items() if pixels >= _FEWEST_PIXELS * side**2]
        there = f"; --explain_layer {finer[-1]} has finer ones" if finer else ""
        return [f"layer {self.layer}: its maps have {height} x {width} pixels, which hardly say where{there}"]


class PlanExplainer(Explaining):
    """One whose network is a program: a plan gives the maps, and NumPy does what is behind them.

    Args:
        library: of our C++ operators.
        program: the network; it must have the mark.
        image, method: see `Explaining`.
        layer: name of a mark; "": the last one, before maps are pooled.
    """

    def __init__(
        self, library: Path, program: Finished, image: tuple[int, int, int], layer: str = "", method: str = "layercam"
    ) -> None:
        layer = layer or list(program.marks)[-1]
        mark = program.marks[layer]
        self._plan, self._rest = NativePlan(library, program.until(mark)), Rest(program, mark)
        self._lanes = len(mark.maps.lanes)
        reductions = {name: each.reduction for name, each in program.marks.items() if each.reduction}
        super().__init__(layer, self._plan.size(image), image, method, reductions)

    def _parts(self, images: NDArray[Any], labels: NDArray[Any]) -> Iterable[tuple[NDArray[Any], ...]]:
        most = max(1, min(MOST, _CACHED // (self._lanes * self.size[0] * self.size[1])))
        for start in range(0, len(images), most):
            yield self._rest(self._plan.maps(images[start : start + most]), labels[start : start + most])
