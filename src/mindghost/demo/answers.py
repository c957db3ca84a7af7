"""What there is to say of an image: its classes, where the network saw them, images of an index that are like it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import tasks
from ..data import images, transforms
from ..errors import RunError, UserError
from ..evaluate import batch
from ..inference.deployment import Deployment
from ..inference.opening import explaining, opened
from ..inference.predictor import Prediction, Predictor
from ..process import resources
from ..search.index import Index
from ..search.picture import Neighbour
from ..search.query import Searcher
from ..tasks import heat

# Pixels of the longer side of a picture on the page: of a larger image, and at least of a smaller one.
LARGEST, SMALLEST = 1024, 256


@dataclass(frozen=True)
class Wanted:
    """What is to be said beside the answers of the network.

    Attributes:
        top_k: answers for each image at most; None: as many as the task gives.
        explain: whether maps are drawn of where the network saw its class, if it has gradients.
        explain_layer, explain_method: see `opening.explaining`; empty: the usual ones.
        neighbours: images of the index that are shown.
    """

    top_k: int | None = None
    explain: bool = True
    explain_layer: str = ""
    explain_method: str = ""
    neighbours: int = 8


@dataclass(frozen=True)
class Answer:
    """What is said of an image.

    Attributes:
        prediction: of the network; with a `problem` where the image cannot be read.
        neighbours: images that are like it, the most like first; none without an index.
        is_first: whether it is the first of several images in its file.
        picture: of the image, uint8 (h, w, 3), as large as the page shows it.
        overlay: the same with what the network saw where; None where it does not say that.
    """

    prediction: Prediction
    neighbours: tuple[Neighbour, ...] = ()
    is_first: bool = False
    picture: NDArray[Any] | None = None
    overlay: NDArray[Any] | None = None


class Answerer:
    """A network, and an index of its vectors, that are asked about one image after the other.

    Args:
        deployed: the network.
        index: made by it; None: there is none.
        wanted: what is to be said.

    Attributes:
        deployed, index, wanted: as given.
        explains: whether answers have maps of where the network saw its class.
        notes: a line for each thing that is worth knowing of these maps.

    Raises UserError for a file that is damaged, or has no gradients where a layer was asked for, and for an index of
    another network.
    """

    def __init__(self, deployed: Deployment, index: Index | None = None, wanted: Wanted | None = None) -> None:
        self.deployed, self.index, self.wanted = deployed, index, wanted or Wanted()
        self._task = tasks.of(deployed.config)
        # First: an index of another network is found by its digest, before anything is computed.
        self._searcher = None if index is None else Searcher.open(index, deployed)
        self.notes: list[str] = []
        layer, method = self.wanted.explain_layer, self.wanted.explain_method
        possible = not deployed.exported and self._task.explains
        self.explains = self.wanted.explain and bool(possible or layer or method)
        if self.explains:
            explainer = explaining(deployed, layer, method or "layercam")
            self.notes += explainer.notes()
            self._predictor = Predictor(deployed, explainer, 1)
        else:
            self._predictor = Predictor(deployed, batch.sparing(opened(deployed, mode=1)), 1)

    def warm_up(self, progress: Callable[[int], None] | None = None) -> None:
        """Answer once, so that what takes its time is done before somebody waits, and what is damaged is found.

        Args:
            progress: called with the number of vectors that were added to a graph that has to be made.

        Raises UserError where the network or the index gives no answer.
        """
        grey = np.full((*transforms.input_size(self.deployed.config), 3), 128, np.uint8)
        self._predictor.of_pixels("", grey)
        self._neighbours(grey, progress)

    def answer(self, content: bytes, name: str) -> Answer:
        """What is said of an image file's bytes, which may be anything; `name` is for messages.

        An image that cannot be read, and one for which the machine lacks memory, is a prediction with a `problem`.
        """
        try:
            with resources.spent_on(name):
                pixels = np.asarray(images.open_upright(content, name, None))
                is_first = images.check_stream(io.BytesIO(content), name, decode=False)
                prediction = self._predictor.of_pixels(name, pixels, self.wanted.top_k)
                picture = at_size_of_page(pixels)
                overlay = self._overlay(picture, prediction)
                return Answer(prediction, self._neighbours(pixels), is_first, picture, overlay)
        except (UserError, RunError) as error:
            return Answer(Prediction(name, (), str(error)))
        except RuntimeError as error:  # as MindSpore says that it got no memory
            if (scarce := resources.problem(error)) is None:
                raise
            return Answer(Prediction(name, (), f"{name}: {scarce}"))

    def _neighbours(self, pixels: NDArray[Any], progress: Callable[[int], None] | None = None) -> tuple[Neighbour, ...]:
        if self._searcher is None:
            return ()
        return self._searcher.nearest(self._predictor.prepare(pixels), self.wanted.neighbours, progress)

    def _overlay(self, picture: NDArray[Any], prediction: Prediction) -> NDArray[Any] | None:
        colors = self.deployed.colors
        if prediction.mask is not None and colors is not None:
            return self._task.overlay(picture, prediction.mask, colors)
        if prediction.heat is None:
            return None
        return heat.over(picture, prediction.heat, transforms.seen_box(self.deployed.config, *picture.shape[:2]))


def at_size_of_page(pixels: NDArray[Any]) -> NDArray[Any]:
    """An image, uint8 (height, width, 3), as large as a page shows it: a small one keeps hard edges."""
    longer, shorter = max(pixels.shape[:2]), min(pixels.shape[:2])
    if longer > LARGEST:
        # Not below a pixel: an image may be a thousand times as long as it is high.
        factor = max(LARGEST / longer, 1 / shorter)
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    factor = max(1, min(math.ceil(SMALLEST / longer), LARGEST // longer))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
