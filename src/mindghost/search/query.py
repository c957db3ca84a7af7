"""Images -> their neighbours in an index, by the network that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

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
    vectors.check_same(index.origin, embed.origin_of(deployed), str(index.path), str(deployed.path))
    if approximate or (approximate is None and index.approximate):
        graph.check_library()
    samples = reading.of_files(reading.expanded(images, listed), deployed.config)
    embedder = embed.Embedder.open(deployed, len(samples), batch_size)
    found, problems = embedder.vectors([samples])
    scores, rows = index.nearest(found.vectors, count, approximate, progress)
    answers = {
        path: tuple(_neighbour(index, int(row), float(score)) for row, score in zip(*line, strict=True))
        for path, *line in zip(found.paths.tolist(), rows, scores, strict=True)
    }
    names = (samples.name(place) for place in range(len(samples)))
    return [Found(name, answers.get(name, ()), problems.get(name, "")) for name in names]


def _neighbour(index: Index, row: int, score: float) -> Neighbour:
    content = index.content
    name = content.class_of(row)
    path = str(content.paths[row])
    return Neighbour(path, float(np.float32(score)), int(content.labels[row]) if name else vectors.UNKNOWN, name or "")
