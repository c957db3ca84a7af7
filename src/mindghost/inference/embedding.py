"""Images -> embeddings: what a network knows of an image before it names a class, as vectors of length 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..errors import UserError
from . import formats, kept
from .deployment import Deployment
from .formats import Network
from .network import of_any_number, of_cell, say_unchecked, trained_cell

if TYPE_CHECKING:
    from ..graph_cache import GraphCache


def open_embedding(deployed: Deployment, operators: Path | None = None, graphs: GraphCache | None = None) -> Network:
    """The embeddings of a file: images (N, channels, height, width) float32 -> (N, num_features) float32, of length 1.

    Those of weights are `Network.forward_head(pre_logits=True)`, and run on our native operators, if they are given;
    `graphs` compiles them, if it is given. An exported file carries them where `mindghost export --embedding` wrote it.

    Raises UserError for a network without, and where the file is damaged; so does the network for what is not finite.
    """
    if tasks.of(deployed.config).is_dense:
        raise UserError(
            f"{deployed.path}: a network that gives each pixel a class has no embedding; give a classifier's file"
        )
    if deployed.exported:
        run = of_any_number(deployed, formats.of(deployed.path).embedding(deployed.path))
        say_unchecked(deployed.path)
    else:
        from .. import build
        from ..models.network import Network as Classifier

        form = build.for_plan(deployed.config, operators)
        place = None if form is None else kept.place_of(deployed, embedding=True)
        cell, prefix = trained_cell(deployed, operators)
        assert isinstance(cell, Classifier)  # all but those of pixels are
        # Without a classifier, its embeddings are what the network gives.
        cell.reset_classifier(0)
        run = of_cell(cell, graphs, form, kept.keeper(place, deployed, prefix, embedding=True))
    return normalised(run, deployed.path)


def normalised(network: Network, path: Path) -> Network:
    """A network whose outputs (N, dimensions) are brought to length 1; one of zeros alone, which has none, stays.

    It raises UserError, which names its file, for what is not finite.
    """

    def run(images: NDArray[Any]) -> NDArray[Any]:
        found = network(images).astype(np.float64)
        if found.ndim != 2 or len(found) != len(images):
            raise UserError(
                f"{path}: gives embeddings of shape {found.shape} for {len(images)} images; export it again"
            )
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            raise UserError(
                f"{path}: its embeddings are not finite (NaN or infinity) for {bad.sum()} of {len(bad)} images; use "
                "another copy of the file, or a higher precision if one was chosen"
            )
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return (found / np.where(lengths == 0, 1, lengths)).astype(np.float32)

    return run
