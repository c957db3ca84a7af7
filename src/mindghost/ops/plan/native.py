"""A plan in the library of our C++ operators."""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .program import KINDS, Finished


class NativePlan:
    """Images (N, in_channels, H, W) -> logits (N, classes), or embeddings; of pixels (N, classes, H, W); all float32.

    Args:
        library: file of the C++ operators.
        program: the network.
        bfloat16: see `Form`. Where the processor has no such products, loops take their place, slowly.

    It may be called from several threads. Raises MemoryError where there is no memory for the images.
    """

    def __init__(self, library: Path, program: Finished, bfloat16: bool = False) -> None:
        self._library = _functions(library)
        self._in_channels, self._outputs, self._is_dense = program.in_channels, program.outputs, program.is_dense
        self._plan = self._library.ghostnet_plan_make(program.numbers.ctypes, program.weights.ctypes, bfloat16)
        if not self._plan:
            raise MemoryError("no memory for the network's weights")
        weakref.finalize(self, self._library.ghostnet_plan_delete, self._plan)

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        """See the class."""
        found = self.maps(images)
        return found if self._is_dense else found.reshape(len(images), self._outputs)

    def maps(self, images: NDArray[Any]) -> NDArray[Any]:
        """The last maps of the program for images, float32 (N, outputs, h, w)."""
        images = np.ascontiguousarray(images, np.float32)
        if images.ndim != 4 or images.shape[1] != self._in_channels or 0 in images.shape:
            raise ValueError(f"expected images (N, {self._in_channels}, H, W), got {images.shape}")
        maps = np.empty((len(images), self._outputs, *self.size(images.shape[1:])), np.float32)
        if self._library.ghostnet_plan_run(self._plan, images.ctypes, *images.shape, maps.ctypes):
            raise MemoryError(f"no memory for {len(images)} images at once")
        return maps

    def size(self, image: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the last maps for images of this size (channels, H, W)."""
        found = np.empty(2, np.int64)
        self._library.ghostnet_plan_size(self._plan, *image, found.ctypes)
        return int(found[0]), int(found[1])


def _functions(library: Path) -> ctypes.CDLL:
    functions = ctypes.CDLL(str(library))
    functions.ghostnet_plan_kinds.restype = ctypes.c_char_p
    kinds = tuple(functions.ghostnet_plan_kinds().decode().split())
    assert kinds == KINDS, kinds
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    functions.ghostnet_plan_make.restype = pointer
    functions.ghostnet_plan_make.argtypes = [pointer, pointer, ctypes.c_int]
    functions.ghostnet_plan_delete.restype, functions.ghostnet_plan_delete.argtypes = None, [pointer]
    functions.ghostnet_plan_size.restype = None
    functions.ghostnet_plan_size.argtypes = [pointer, size, size, size, pointer]
    functions.ghostnet_plan_run.argtypes = [pointer, pointer, size, size, size, size, pointer]
    return functions
