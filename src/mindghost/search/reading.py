"""Images for vectors: turned upright, with what tells whether one has changed; one that cannot be read ends nothing."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..config import Config
from ..data import images, jpeg, layouts, places, transforms, walk
from ..data import pack as packs
from ..data.examples import Examples, Labels
from ..data.imagenet import downloaded
from ..data.samples import FileSamples, FolderSamples, Samples
from ..errors import UserError
from ..files import paths
from ..inference import sources
from .vectors import DIGEST_BYTES, UNKNOWN

log = logging.getLogger("mindghost")

_SPLITS = ("train", "val", "test")
# What a batch has beside its pixels: digest of each file, and whether it could be read.
_NOTE = np.dtype([("digest", "u1", (DIGEST_BYTES,)), ("good", "?")])


@dataclass(frozen=True, eq=False)
class ReadImages(Samples):
    """Samples as they are read for vectors: the label of a batch says digests, and which images could be read.

    Attributes:
        parts: the samples, one after the other; `classes` are the names of all.
        starts: index of the first sample of each part.
        problems: gets why one could not be read, by its index among all.
        first: index among all of the first sample that is left of them.
    """

    parts: tuple[Samples, ...]
    starts: NDArray[Any]
    problems: dict[int, str] = field(default_factory=dict)
    first: int = 0

    @classmethod
    def of(cls, parts: Sequence[Samples], known: Sequence[str] = ()) -> ReadImages:
        """Samples of any layout, one after the other.

        `known`: names of classes in label order, which are taken where they hold all of the samples' own.
        """
        names = dict.fromkeys(name for part in parts for name in part.classes)
        classes = tuple(known) if names and set(names) <= set(known) else tuple(names)
        label_of = {name: label for label, name in enumerate(classes)}
        labels = [_labels(part, label_of) for part in parts]
        starts = np.cumsum([0, *map(len, parts)])[:-1]
        return cls(classes, np.concatenate(labels), tuple(parts), starts)

    def _place(self, index: int) -> tuple[Samples, int]:
        index += self.first
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def read(self, index: int) -> NDArray[Any]:
        """The pixels of a sample, upright."""
        return self.opened(index)[0]

    def name(self, index: int) -> str:
        """What the image is called."""
        part, at = self._place(index)
        return part.name(at)

    def opened(self, index: int) -> tuple[NDArray[Any], bytes]:
        """Pixels of a sample, upright, and the bytes that they were made of. Raises UserError where they are none."""
        part, at = self._place(index)
        if isinstance(part, FileSamples):
            content = part.content(at)
            return np.asarray(images.open_upright(content, part.name(at), part.decoder)), content
        pixels = part.read(at)
        return pixels, np.ascontiguousarray(pixels).tobytes()

    def rest(self, done: int) -> ReadImages:
        """The samples behind the first ones."""
        return replace(self, labels=self.labels[done:], first=self.first + done)

    def problem(self, index: int) -> str:
        """Why a sample cannot be read, in one line."""
        if found := self.problems.get(index + self.first):
            return found
        try:
            self.opened(index)
        except UserError as error:
            return str(error)
        return f"{self.name(index)}: could not be read when its turn was; embed it again"

    def sizes_and_times(self) -> NDArray[Any]:
        """Bytes of each file, and when it was changed, int64 (n, 2); -1 and 0 where there is no file."""
        found = np.tile(np.array([-1, 0], np.int64), (len(self), 1))
        for index in range(len(self)):
            part, at = self._place(index)
            if isinstance(part, FileSamples):
                found[index] = part.size_and_time(at)
        return found

    def examples(self, config: Config, training: bool) -> Examples:
        """What makes them what a network gets."""
        return _Examples(config, self)

    def _identity(self) -> NDArray[Any]:
        """Names, and what the samples without files say of themselves."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(os.fsencode(self.name(index)) + b"\0")
        for part in self.parts:
            if not isinstance(part, FileSamples):
                digest.update(part.digest().encode())
        return np.frombuffer(digest.digest(), np.uint8)


def _labels(part: Samples, label_of: dict[str, int]) -> NDArray[Any]:
    """Labels of samples by other numbers; -1 where they have none, or several."""
    if part.labels.ndim != 1:
        return np.full(len(part), UNKNOWN, np.int32)
    mapping = np.array([*(label_of[name] for name in part.classes), UNKNOWN], np.int32)
    return mapping[part.labels]


class _Examples(Examples):
    """Pixels as evaluation has them, but upright, and a note beside each."""

    def __init__(self, config: Config, samples: ReadImages) -> None:
        super().__init__(config, samples, training=False)
        self._images = samples
        self._transform = tasks.of(config).eval_transform(config)

    def labels(self, indices: NDArray[Any]) -> Labels:
        return np.zeros(len(indices), _NOTE)

    def fill(
        self, index: int, image: NDArray[Any], labels: Labels, place: int, rng: np.random.Generator | None = None
    ) -> None:
        try:
            pixels, content = self._images.opened(index)
            self._transform(transforms.as_rgb(pixels, self.shape[0]), image)
        except UserError as error:
            self._images.problems[index + self._images.first] = str(error)
            image[:] = 0
            return
        digest = hashlib.sha256(content).digest()[:DIGEST_BYTES]
        labels[place] = (np.frombuffer(digest, np.uint8), True)


def of_files(files: Sequence[str], config: Config) -> FolderSamples:
    """Image files as samples without classes; they are called what they are called here."""
    return _named(files, (), np.full(len(files), UNKNOWN, np.int32), config)


def of_folder(folder: Path, config: Config) -> FolderSamples:
    """The image files in a folder and below it; the first folder below it that each lies in is its class.

    Raises UserError where there is none, or a folder cannot be listed.
    """
    files = walk.image_files(folder)
    if not files:
        raise UserError(f"{folder}: no image in this folder; give one with .jpg, .png or other images")
    groups = walk.by_class_folder(files, folder)
    classes = sorted(name for name in groups if name)
    labels = np.full(len(files), UNKNOWN, np.int32)
    for label, name in enumerate(classes):
        labels[groups[name]] = label
    return _named(files, tuple(classes), labels, config)


def _named(files: Sequence[str], classes: tuple[str, ...], labels: NDArray[Any], config: Config) -> FolderSamples:
    names = np.array([os.fsencode(file) for file in files])
    return FolderSamples(classes, labels, "", names, jpeg.decoder(config.native_ops))


def opened(given: Sequence[str], config: Config, split: str = "", listed: Iterable[str] = ()) -> list[Samples]:
    """What a command was given to look at: samples, one after the other, of which only the names were looked at.

    Args:
        given: files, folders, patterns and lists, as `sources.expand` has them; or one folder of data: with splits in
            it, in any layout, or with a folder for each class, from which labels come.
        config: says how binary data sets are read.
        split: of a folder of data, this one alone; all that are there, where it is empty.
        listed: the names that "-" stands for.

    Raises UserError where there is nothing, or no such split.
    """
    return list(opened_by_split(given, config, split, listed).values())


def opened_by_split(
    given: Sequence[str], config: Config, split: str = "", listed: Iterable[str] = ()
) -> dict[str, Samples]:
    """As `opened`, with the name of each split; it is empty where there are none."""
    if len(given) == 1 and given[0] != "-" and paths.is_folder(given[0]):
        return _of_data(Path(given[0]), config, split)
    if split:
        raise UserError(f"--split: {given[0]} is no folder of data; give one, or leave the option out")
    return {"": of_files(expanded(given, listed), config)}


def expanded(given: Sequence[str], listed: Iterable[str] = ()) -> list[str]:
    """The image files that are meant (`sources.expand`), each once. Raises UserError for none, and for a video."""
    files = list(dict.fromkeys(sources.expand(given, listed)))
    if not files:
        raise UserError("-: no image in the list on standard input")
    if videos := [file for file in files if sources.is_video(file)]:
        raise UserError(f"{videos[0]}: a video; give images, such as frames that were taken out of it")
    return files


def _of_data(data: Path, config: Config, split: str) -> dict[str, Samples]:
    """The splits in a folder of data, or what is in the folder itself."""
    names = [split] if split else [name for name in _SPLITS if places.is_there(data, name)]
    if split and not places.is_there(data, split):
        raise UserError(f"--split: {data} has no split {split!r}; give one that is there, or leave the option out")
    if not names and config.dataset != "imagenet" and not _has_images(data):
        task = tasks.of(config)
        return {name: task.open_split(config.of_folder(data), name) for name in ("train", "val")}
    if names and not split:
        _say_beside(data, names)
    return {name: _of_split(data, name, config) for name in names or [""]}


def _say_beside(data: Path, names: Sequence[str]) -> None:
    """Warn of images that lie beside the splits of a folder: it may be one of photos, of trains for example."""
    inside = {places.folder(data, name).name for name in names}
    groups = walk.by_class_folder(walk.image_files(data, walk.LeftOut()), data)
    if count := sum(len(files) for name, files in groups.items() if name not in inside):
        log.warning(
            f"{data}: taken for data with the splits {', '.join(names)}: {count:,} images beside them are left out; "
            "give each of its folders to have all"
        )


def _of_split(data: Path, split: str, config: Config) -> Samples:
    """A split in any layout; folders are taken as they are, whatever else lies in them."""
    root = places.folder(data, split)
    if paths.is_folder(root) and not (places.shards(data, split) or packs.is_pack(root) or downloaded.is_flat(root)):
        return of_folder(root, config)
    found = layouts.opened(data, split, jpeg.decoder(config.native_ops))
    assert found is not None  # it is there
    return found


def _has_images(folder: Path) -> bool:
    return bool(walk.image_files(folder, walk.LeftOut()))
