"""Images -> the classes that a network gives them: files, folders, patterns, lists, frames of a video or a camera."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data import images, transforms, walk
from ..errors import UserError
from ..evaluate.evaluator import Network
from ..files import paths, scratch
from ..process import resources
from ..process.display import shown
from .artifact import Deployment

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))

_THREADS = 4  # that decode and resize; both leave Python's lock
# Of an annotated picture, in pixels.
_MIN_WIDTH, _LINE, _MARGIN = 320, 20, 6
_LONGEST = 4096  # that enlarging may make of its longer side
_LONGEST_STEM = 240  # bytes


@dataclass(frozen=True)
class Guess:
    """A class that an image may show.

    Attributes:
        label: index among the network's outputs.
        name: of the class.
        probability: softmax of its logit, from 0 to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a network says about an image.

    Attributes:
        image: path of the file, or of the video and number of the frame.
        guesses: the likeliest first; empty where the image cannot be read.
        problem: why it cannot be read, in one line; empty otherwise.
        pixels: uint8 (height, width, 3), RGB; None where it cannot be read.
    """

    image: str
    guesses: tuple[Guess, ...]
    problem: str = ""
    pixels: np.ndarray | None = None


# --- What to look at


def expand(sources: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """The image files, videos and camera numbers that are meant.

    Args:
        sources: files, folders (the images in them and below, sorted), patterns such as `'photos/*.jpg'`, videos,
            numbers of cameras; "-" stands for `listed`.
        listed: one more source each.

    Raises UserError for a folder or pattern without images. A file that is not there stays in the list, and so does
    whatever was `listed`: one name of thousands does not end a command.
    """
    found: list[str] = []
    for source in sources:
        if source == "-":
            found += itertools.chain.from_iterable(map(_expand_listed, listed))
        else:
            found += _expand(source)
    return found


def _expand_listed(source: str) -> list[str]:
    source = source.rstrip("\n")
    if not paths.exists(source):
        source = source.rstrip("\r")  # a list from Windows
    if not source.strip() or source == "-":
        return []
    try:
        return _expand(source)
    except UserError:
        return [source]


def _expand(source: str) -> list[str]:
    if paths.is_folder(source):
        files = walk.image_files(source)
        if not files:
            raise UserError(f"{source}: no image in this folder; give one with .jpg, .png or other images")
        return files
    if not paths.exists(source) and glob.has_magic(source):
        matches = _matches(_pattern(source))
        if not matches:
            raise UserError(f"{source}: no file matches this pattern; correct it, or name files or folders")
        matches = _pictures(source, matches)
        # A pattern may match a folder and what is in it.
        return list(dict.fromkeys(file for match in matches for file in _expand(match)))
    return [source]


def _matches(pattern: str) -> list[str]:
    """What a pattern matches, sorted. `**` stands for the folders that `walk` goes through: no links in circles."""
    before, deep, after = f"{pattern}/".partition("**/")
    if not deep or (before and not before.endswith("/")):
        return sorted(glob.glob(pattern))
    found: set[str] = set()
    for top in glob.glob(before) if before else [""]:
        if not after:
            found.add(top or os.curdir)
            continue
        for folder in walk.folders(top or os.curdir):
            inside = os.path.join(folder, "")
            found.update(_matches(glob.escape(inside if top else inside.removeprefix("./")) + after[:-1]))
    return sorted(found)


def _pictures(source: str, matches: list[str]) -> list[str]:
    """What a pattern matches, but for files that are no images or videos by their ending, where some are."""
    others = [match for match in matches if not (walk.is_image(match) or is_video(match) or paths.is_folder(match))]
    if len(others) == len(matches):
        return matches
    walk.LeftOut(others).say(source)
    left_out = set(others)
    return [match for match in matches if match not in left_out]


def _pattern(source: str) -> str:
    """A pattern whose first folders are there by just this name: `[` in their names stands for itself."""
    folder, rest = "", source
    while os.sep in rest:
        part, _, after = rest.partition(os.sep)
        if part and not paths.is_folder(f"{folder}{part}"):
            break
        folder, rest = f"{folder}{part}{os.sep}", after
    return glob.escape(folder) + rest


def is_video(source: str) -> bool:
    """Whether a source is a video or a camera, and not an image file."""
    return Path(source).suffix.lower() in VIDEOS or (source.isdecimal() and not paths.exists(source))


def frames(source: str, every: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels, uint8 (height, width, 3) RGB, of one frame in `every` of a video file or camera.

    Raises UserError where OpenCV is not installed or cannot open the source.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"{source}: OpenCV reads videos ({error}); pip install opencv-python-headless") from error
    with contextlib.ExitStack() as stack:
        if source.isdecimal():
            capture = cv2.VideoCapture(int(source))
        else:
            # It dies of a name that is no UTF-8, and takes `%d` for the number of one image of many.
            capture = cv2.VideoCapture(str(stack.enter_context(scratch.linked(Path(source)))))
        stack.callback(capture.release)
        if not capture.isOpened():
            raise UserError(f"{source}: OpenCV cannot open this {'camera' if source.isdecimal() else 'video'}")
        for number in itertools.count():
            read, frame = capture.read()
            if not read:
                return
            if number % every == 0:
                yield f"{source}#{number}", np.ascontiguousarray(frame[..., ::-1])


# --- Predicting


class Predictor:
    """A network with its preprocessing and class names.

    Args:
        deployed: says what the network gets and what its outputs mean.
        network: of `network.open_network`.
        batch_size: images that are run at once.
    """

    def __init__(self, deployed: Deployment, network: Network, batch_size: int = 32) -> None:
        self._network, self._classes, self._batch_size = network, deployed.classes, batch_size
        self._in_channels = deployed.config.in_channels
        self._transform = transforms.eval_transform(deployed.config)

    def predict(self, sources: Iterable[str], top_k: int = 5, every: int = 1) -> Iterator[Prediction]:
        """The predictions of images, in order, as they come.

        Args:
            sources: of `expand`.
            top_k: classes to name; all of them where there are fewer.
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

    def _load(self, path: str) -> tuple[str, np.ndarray | str, np.ndarray | None]:
        try:
            with resources.spent_on(path):
                pixels = images.read_image(path, upright=True)
                return path, pixels, self.prepare(pixels)
        except UserError as error:
            return path, str(error), None

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """What the network gets of an image, uint8 (height, width, 3): float32 (C, H, W)."""
        return np.asarray(self._transform(transforms.as_rgb(pixels, self._in_channels)), np.float32)

    def _finish(
        self, loaded: list[tuple[str, np.ndarray | str, np.ndarray | None]], top_k: int
    ) -> Iterator[Prediction]:
        inputs = [prepared for _, _, prepared in loaded if prepared is not None]
        shares = iter(probabilities(self._network(np.stack(inputs))) if inputs else ())
        for name, pixels, prepared in loaded:
            if prepared is None:
                yield Prediction(name, (), str(pixels))
            else:
                yield Prediction(name, self._guesses(next(shares), top_k), pixels=pixels)

    def _guesses(self, shares: np.ndarray, top_k: int) -> tuple[Guess, ...]:
        best = np.argsort(-shares, kind="stable")[:top_k]
        return tuple(Guess(int(label), self._classes[label], float(shares[label])) for label in best)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of (N, classes), in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


# --- Annotated pictures


def annotate(prediction: Prediction) -> Image.Image:
    """The picture with a line for each guess below it; small pictures are enlarged."""
    picture = Image.fromarray(prediction.pixels)
    factor = max(1, min(-(-_MIN_WIDTH // picture.width), _LONGEST // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    height = len(prediction.guesses) * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (max(picture.width, _MIN_WIDTH), picture.height + height), "white")
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, guess in enumerate(prediction.guesses):
        top = picture.height + _MARGIN + row * _LINE
        # A bar as long as the probability, behind the text.
        draw.rectangle((0, top, round(guess.probability * sheet.width), top + _LINE - 3), fill=(190, 215, 245))
        # Pillow's own font has Latin letters only.
        name = shown(guess.name).encode("latin-1", "replace").decode("latin-1")
        draw.text((_MARGIN, top + 2), f"{guess.probability:6.1%}  {name}", fill="black", font=font)
    return sheet


def picture_name(image: str, taken: set[str]) -> str:
    """A file name for the annotated picture of an image, other than those taken, to which it is added."""
    path = Path(image)
    stem = path.stem if "#" not in path.suffix else f"{path.stem}_{path.suffix.partition('#')[2]}"
    # Room for a number and another ending, in bytes, of which a name has 255 at the most.
    stem = os.fsdecode(os.fsencode(stem)[:_LONGEST_STEM])
    names = itertools.chain([f"{stem}.png"], (f"{stem}_{count}.png" for count in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
