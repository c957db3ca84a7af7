"""Images -> what a network says of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..data import images, transforms
from ..errors import UserError
from ..process import resources
from ..tasks.task import Answer
from .deployment import Deployment
from .formats import Network
from .network import check_logits, divided
from .sources import frames, is_video

if TYPE_CHECKING:
    from .class_activation import Explaining

_THREADS = 4  # that decode and resize; both leave Python's lock
# Name; pixels, or why there are none; what the network gets of them, or None.
_Loaded = tuple[str, Any, NDArray[Any] | None]


@dataclass(frozen=True)
class Prediction:
    """What a network says about an image.

    Attributes:
        image: path of the file, or of the video and number of the frame.
        answers: the first one first; empty where the image cannot be read, or the network has none.
        problem: why it cannot be read, in one line; empty otherwise.
        pixels: uint8 (height, width, 3), RGB; None where it cannot be read.
        mask: the class of each pixel, uint8 or uint16 (height, width); None where the task is about whole images.
        heat: where in its input the network saw the likeliest class, float32 (h, w), not negative; None where nobody
            asked.
    """

    image: str
    answers: tuple[Answer, ...]
    problem: str = ""
    pixels: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None
    heat: NDArray[Any] | None = None


class _Said(NamedTuple):
    """What a network says of an image (see `Prediction`)."""

    answers: tuple[Answer, ...]
    mask: NDArray[Any] | None
    heat: NDArray[Any] | None


class Predictor:
    """A network with its preprocessing and class names.

    Args:
        deployed: says what the network gets and what its outputs mean.
        network: of `network.open_network`; or of `opening.explaining`, which says where it saw the class, too.
        batch_size: images that are run at once.
    """

    def __init__(self, deployed: Deployment, network: Network | Explaining, batch_size: int = 32) -> None:
        self._network, self._classes, self._batch_size = network, deployed.classes, batch_size
        self._path, self._temperature = deployed.path, deployed.temperature
        self._task, self._thresholds = tasks.of(deployed.config), deployed.thresholds
        self._in_channels = deployed.config.in_channels
        self._transform = self._task.eval_transform(deployed.config)

    def predict(self, sources: Iterable[str], top_k: int | None = None, every: int = 1) -> Iterator[Prediction]:
        """The predictions of images, in order, as they come.

        Args:
            sources: of `expand`.
            top_k: answers for each image at most; None: as many as the task gives.
            every: of a video, one frame in `every` is looked at.

        An image or video that cannot be read is a prediction with a `problem`.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            read = self._read(sources, every)
            ahead = None
            while True:
                # While the network runs a batch, the next one is read.
                batch = [pool.submit(load) for load in itertools.islice(read, self._batch_size)]
                if ahead:
                    yield from self._finish([task.result() for task in ahead], top_k)
                if not batch:
                    return
                ahead = batch

    def _read(self, sources: Iterable[str], every: int) -> Iterator[Any]:
        """For each image or frame, a function that gives its name, its pixels and what the network gets of it."""
        for source in sources:
            if is_video(source):
                yield from self._read_video(source, every)
            else:
                yield lambda source=source: self._load(source)

    def _read_video(self, source: str, every: int) -> Iterator[Any]:
        try:
            for name, pixels in frames(source, every):
                yield lambda name=name, pixels=pixels: (name, pixels, self.prepare(pixels))
        except UserError as error:
            problem = str(error)
            yield lambda: (source, problem, None)

    def _load(self, path: str) -> _Loaded:
        try:
            with resources.spent_on(path):
                pixels = images.read_image(path, upright=True)
                return path, pixels, self.prepare(pixels)
        except UserError as error:
            return path, str(error), None

    def of_pixels(self, name: str, pixels: NDArray[Any], top_k: int | None = None) -> Prediction:
        """The prediction of an image that was read already: uint8 (height, width, 3), upright. See `predict`."""
        return next(self._finish([(name, pixels, self.prepare(pixels))], top_k))

    def prepare(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the network gets of an image, uint8 (height, width, 3): float32 (C, H, W)."""
        return np.asarray(self._transform(transforms.as_rgb(pixels, self._in_channels)), np.float32)

    def _finish(self, loaded: list[_Loaded], top_k: int | None) -> Iterator[Prediction]:
        readable = [(pixels.shape[:2], prepared) for _, pixels, prepared in loaded if prepared is not None]
        found = iter(self._said(readable, top_k) if readable else ())
        for name, pixels, prepared in loaded:
            if prepared is None:
                yield Prediction(name, (), str(pixels))
            else:
                said = next(found)
                yield Prediction(name, said.answers, pixels=pixels, mask=said.mask, heat=said.heat)

    def _said(self, readable: Sequence[tuple[tuple[int, int], NDArray[Any]]], top_k: int | None) -> Iterator[_Said]:
        """What the network says, for the size of each image and what the network gets of it."""
        outputs, heats = self._run(np.stack([prepared for _, prepared in readable]))
        if self._temperature is not None and self._task.has_temperature:
            outputs = divided(outputs, self._temperature)
        masks = self._task.masks(outputs, [size for size, _ in readable])
        answers = self._task.answers(outputs if masks is None else masks, self._classes, top_k, self._thresholds)
        nothing = [None] * len(answers)
        return map(_Said, answers, nothing if masks is None else masks, nothing if heats is None else heats)

    def _run(self, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Outputs, and where they come from, if the network says that."""
        found = self._network(images)
        if not isinstance(found, tuple):
            return found, None
        logits, heats = found
        check_logits(logits, images, self._path, len(self._classes))
        return logits, heats
