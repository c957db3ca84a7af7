"""Images -> their neighbours in an index, by the network that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.deployment import Deployment
from . import embed, graph, reading, vectors
from .index import Index
from .picture import Found, Neighbour


def neighbours(
    index: Index,
    deployed: Deployment,
    images: Sequence[str],
    count: int = 10,
    approximate: bool | None = None,
    batch_size: int | None = None,
    listed: Iterable[str] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Found]:
    """The images of an index that are most like others.

    Args:
        index: to look in.
        deployed: the network that made the vectors of the index.
        images: files, folders and patterns (`sources.expand`).
        count: of neighbours for each.
        approximate: see `Index.nearest`.
        batch_size: images at once; None: as many as suit the machine.
        listed: the names that "-" stands for.
        progress: see `Index.nearest`.

    Returns what was found for each image, in their order.

    Raises UserError for another network than the index's, and where there is no image.
    """
    _check(index, deployed, approximate)
    samples = reading.of_files(reading.expanded(images, listed), deployed.config)
    embedder = embed.Embedder.open(deployed, len(samples), batch_size)
    found, problems = embedder.vectors([samples])
    lines = _nearest(index, found.vectors, count, approximate, progress)
    answers = dict(zip(found.paths.tolist(), lines, strict=True))
    names = (samples.name(place) for place in range(len(samples)))
    return [Found(name, answers.get(name, ()), problems.get(name, "")) for name in names]


@dataclass(frozen=True)
class Searcher:
    """An index and the network that made it, both open: for one image after the other.

    Attributes:
        index: to look in.
        embedder: makes a vector of an image.
    """

    index: Index
    embedder: embed.Embedder

    @classmethod
    def open(cls, index: Index, deployed: Deployment) -> Searcher:
        """The searcher of an index. Raises UserError for another network than the index's."""
        _check(index, deployed)
        return cls(index, embed.Embedder.open(deployed, 1))

    def nearest(
        self, prepared: NDArray[Any], count: int = 10, progress: Callable[[int], None] | None = None
    ) -> tuple[Neighbour, ...]:
        """The images that are most like one, the nearest first.

        Args:
            prepared: what the network gets of the image, float32 (channels, height, width).
            count: of neighbours.
            progress: see `Index.nearest`.
        """
        (found,) = _nearest(self.index, self.embedder.network(prepared[np.newaxis]), count, None, progress)
        return found


def _check(index: Index, deployed: Deployment, approximate: bool | None = None) -> None:
    """Raise UserError for another network than the index's, and where the library for its graph is missing."""
    vectors.check_same(index.origin, embed.origin_of(deployed), str(index.path), str(deployed.path))
    if approximate or (approximate is None and index.approximate):
        graph.check_library()


def _nearest(
    index: Index,
    queries: NDArray[Any],
    count: int,
    approximate: bool | None,
    progress: Callable[[int], None] | None,
) -> list[tuple[Neighbour, ...]]:
    """The neighbours of each query, float32 (q, dimensions)."""
    scores, rows = index.nearest(queries, count, approximate, progress)
    return [
        tuple(_neighbour(index, int(row), float(score)) for row, score in zip(*line, strict=True))
        for line in zip(rows, scores, strict=True)
    ]


def _neighbour(index: Index, row: int, score: float) -> Neighbour:
    content = index.content
    name = content.class_of(row)
    path = str(content.paths[row])
    return Neighbour(path, float(np.float32(score)), int(content.labels[row]) if name else vectors.UNKNOWN, name or "")
