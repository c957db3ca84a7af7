"""Where a graph of neighbours has vectors: around their mean, along the axes in which they differ most.

Distances stay when all vectors are moved, turned and scaled alike. Where axes are left out, they lose what vectors
differ by there; so that is done only where neighbours in a sample stay neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vectors import blocks

_SAMPLE = 4_096  # vectors that axes and sizes are measured on
# Of the nearest of some vectors of the sample, so many must be among a few more that are nearest along the axes.
_ASKED, _NEAREST, _CANDIDATES, _LEAST_FOUND = 256, 10, 15, 0.97
_SMALLEST = 1e-6  # number that is not rounding's
_ALIGNED = 64  # bytes
_INTEGERS = 127  # the largest of 8 bits; larger numbers become it
_LARGEST = 100  # what the largest number of the sample becomes: vectors that come later have room


def _no_axes() -> NDArray[Any]:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Space:
    """A mean, axes and a scale.

    Attributes:
        mean: float32 (dimensions,).
        scale: what brings numbers to at most about 100.
        axes: float32 (dimensions, axes), orthonormal; (0, 0) where all dimensions stay as they are.
    """

    mean: NDArray[Any]
    scale: np.float32
    axes: NDArray[Any] = field(default_factory=_no_axes)

    @classmethod
    def around(cls, vectors: NDArray[Any], most: int) -> Space:
        """The space for vectors like these, (n, dimensions).

        With at most so many axes, if these tell neighbours as well as all dimensions, which stay otherwise.
        """
        total = np.zeros(vectors.shape[1])
        for block in blocks(vectors):
            total += block.sum(axis=0, dtype=np.float64)
        mean = (total / max(1, len(vectors))).astype(np.float32)
        some = _sample(vectors) - mean
        axes = _no_axes() if most >= vectors.shape[1] else _leading_axes(some, most)
        sizes = np.abs(some @ axes if axes.size else some)
        return cls(mean, np.float32(_LARGEST / max(float(sizes.max(initial=0)), _SMALLEST)), axes)

    @property
    def dimensions(self) -> int:
        """Numbers of a vector in this space."""
        return (self.axes if self.axes.size else self.mean[np.newaxis]).shape[1]

    def suits(self, *parts: NDArray[Any]) -> bool:
        """Whether the axes tell neighbours of all these vectors, too, (n, dimensions) each."""
        return not self.axes.size or _tell_neighbours(self.axes, _sample(*parts) - self.mean)

    def numbers(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Vectors, float32 (..., dimensions), in this space: float32."""
        moved = vectors - self.mean
        return np.asarray((moved @ self.axes if self.axes.size else moved) * self.scale)

    def integers(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """The same, rounded: int8."""
        return np.clip(np.rint(self.numbers(vectors)), -_INTEGERS, _INTEGERS).astype(np.int8)

    def encode(self) -> bytes:
        """The space as bytes, a multiple of 64."""
        content = (
            np.concatenate([[self.scale, self.axes.shape[1]], self.mean, self.axes.ravel()]).astype("<f4").tobytes()
        )
        return content + bytes(-len(content) % _ALIGNED)

    @classmethod
    def decode(cls, content: Any, dimensions: int) -> Space:
        """The space at the beginning of bytes. Raises ValueError where they are too few."""
        scale, axes = np.frombuffer(content, "<f4", 2)
        numbers = np.frombuffer(content, "<f4", dimensions * (1 + int(axes)), 8).astype(np.float32)
        shape = (dimensions, int(axes)) if axes else (0, 0)
        return cls(numbers[:dimensions], np.float32(scale), numbers[dimensions:].reshape(shape))


def _sample(*parts: NDArray[Any]) -> NDArray[Any]:
    """Some of all vectors, float32."""
    step = max(1, sum(map(len, parts)) // _SAMPLE)
    return np.concatenate([np.asarray(part[::step], np.float32) for part in parts])


def _leading_axes(some: NDArray[Any], most: int) -> NDArray[Any]:
    """The axes along which vectors around 0 differ most (principal components); none where they lose neighbours."""
    _, every = np.linalg.eigh(some.T @ some / max(1, len(some)))
    axes = np.ascontiguousarray(every[:, -most:], np.float32)
    return axes if len(some) and _tell_neighbours(axes, some) else _no_axes()


def _tell_neighbours(axes: NDArray[Any], some: NDArray[Any]) -> bool:
    """Whether the neighbours of vectors are near along the axes, too."""
    pairs = zip(_nearest(some, _NEAREST), _nearest(some @ axes, _CANDIDATES), strict=True)
    return float(np.mean([np.isin(wanted, found).mean() for wanted, found in pairs])) >= _LEAST_FOUND


def _nearest(some: NDArray[Any], count: int) -> NDArray[Any]:
    """Of some vectors, the places of those at the smallest distance, themselves included: (asked, count + 1)."""
    asked = some[:: max(1, len(some) // _ASKED)]
    distances = np.einsum("ij,ij->i", some, some) - 2 * asked @ some.T
    count = min(count + 1, len(some))
    return np.argpartition(distances, count - 1, axis=1)[:, :count]
