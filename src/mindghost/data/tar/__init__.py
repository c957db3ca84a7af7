"""Tar files -> samples, without unpacking: where each image lies is read once, from the headers.

Two forms. As webdataset writes them, the members of a sample have one key: `KEY.jpg` and `KEY.cls`, whose text is the
class's number or name, or `KEY.json` with `label` or `cls`. Without labels, they are class folders: `rose/a.jpg`; a tar
file of tar files (`n01440764.tar`, as ImageNet is downloaded), or one for each class, are folders, too.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import paths
from ...process.display import some
from .. import class_names, images, jpeg, labelled
from ..imagenet import downloaded
from ..places import Shards
from ..regions import Regions
from ..samples import FileSamples
from . import index as tar_index

_AGAIN = "restore it, and start again"
# Files beside the shards that have the class names, and those that may have them among other things.
_NAMES = ("classes.json", "classnames.txt", "classes.txt")
_INFORMATION = ("_info.json", "info.json")

# Tar files that are parts of a set; others may be called like the class that they hold.
_NUMBERED = re.compile(r"(.*[-_.])?\d+\.tar|train\.tar|val\.tar|validation\.tar|test\.tar", re.IGNORECASE)

_logger = logging.getLogger("mindghost")


@dataclass(frozen=True, eq=False)
class TarSamples(FileSamples):
    """Images in tar files.

    Attributes:
        titles: names of the tar files.
        shards, offsets, lengths: number of the tar file, and where the image's bytes are in it.
        times: when the tar file was changed, ns.
        regions: reads them.
    """

    titles: tuple[str, ...] = ()
    shards: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))
    offsets: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    lengths: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    times: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    regions: Regions = field(default_factory=lambda: Regions((), _AGAIN), repr=False)

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """The pixels of an image, of which a JPEG file is decoded as far as they are asked for."""
        return images.open_content(self.content(index), self.name(index), self.decoder)

    def content(self, index: int) -> bytes:
        """The bytes of an image file. Raises UserError where the tar file has become shorter."""
        content = self.regions.read(*self._region(index))
        if len(content) != self.lengths[index]:
            raise UserError(f"{self.name(index)}: cut off since the tar file was looked at; {_AGAIN}")
        return content

    def start(self, index: int, count: int) -> bytes:
        """The first bytes of an image file."""
        shard, offset, length = self._region(index)
        return self.regions.read(shard, offset, min(count, length))

    def size_and_time(self, index: int) -> tuple[int, int]:
        """The size of the image file, and when its tar file was changed."""
        return int(self.lengths[index]), int(self.times[index])

    def check(self, index: int, decode: bool) -> bool:
        """Read the header of an image, with `decode` its pixels too; see `images.check_image`."""
        stream = io.BytesIO(self.content(index)) if decode else self.regions.stream(*self._region(index))
        return images.check_stream(stream, self.name(index), decode)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as stored, from its header. Raises UserError for one that is not usable."""
        return images.size_of(self.regions.stream(*self._region(index)), self.name(index))

    def file_sizes(self) -> NDArray[Any]:
        """Bytes of each image file, int64 (n,)."""
        return self.lengths

    def reading_order(self, indices: NDArray[Any]) -> NDArray[Any]:
        """As they lie in the tar files."""
        return indices[np.lexsort((self.offsets[indices], self.shards[indices]))]

    def name(self, index: int) -> str:
        """The path that the image would have if it were unpacked, and the tar file that holds it."""
        return f"{super().name(index)} (in {self.titles[self.shards[index]]})"

    def _region(self, index: int) -> tuple[int, int, int]:
        return int(self.shards[index]), int(self.offsets[index]), int(self.lengths[index])


def open_tar(place: Shards, decoder: jpeg.Decoder | None = None) -> TarSamples:
    """The samples of a split in tar files: none of the images is opened, and of known files no header is read.

    Raises UserError, which names the tar file and its member, for what is damaged, has no label or two, or is no image
    set.
    """
    root = str(place.root)
    index = tar_index.read(root, [str(file) for file in place.files])
    index.left_out.say(root)
    if not len(index.files):
        raise UserError(f"{root}: no image in {_files(index.titles)}; expected KEY.jpg and KEY.cls, or CLASS/*.jpg")
    numbered = False
    if index.labelled:
        names = _names_beside(place)
        classes, labels, numbered = labelled.settled([os.fsdecode(text) for text in index.texts], names, root)
        files = index.files
    elif downloaded.all_flat(map(os.fsdecode, index.files)):
        files = index.files
        classes, labels = downloaded.labels_of(list(map(os.fsdecode, files)), place.files[0].parent)
    else:
        files = _class_folders(index, root)
        folders = [os.fsdecode(file).partition("/")[0] for file in files]
        classes, labels, _ = labelled.by_name(folders)
    files = _apart(files, index.shards, index.titles)
    samples = TarSamples(
        classes,
        labels,
        root,
        files,
        decoder,
        index.titles,
        index.shards,
        index.offsets,
        index.lengths,
        index.times[index.shards],
        Regions([str(file) for file in place.files], _AGAIN),
        numbered=numbered,
    )
    return samples.take(labelled.folder_order(labels, files))


def _files(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{len(titles):,} tar files ({some(titles, 2)})"


def _names_beside(place: Shards) -> list[str] | None:
    """The class names in a file beside the shards or their folder, None where there is none."""
    for folder in dict.fromkeys((place.files[0].parent, place.root.parent)):
        for name in _NAMES:
            if paths.is_file(folder / name):
                return class_names.read(folder / name)
        for name in _INFORMATION:
            if paths.is_file(folder / name) and (found := class_names.held(folder / name)):
                return found
    return None


def _class_folders(index: tar_index.Index, root: str) -> NDArray[Any]:
    """Paths that begin with the class: without the folder that all of them are in. Raises UserError without classes."""
    files = index.files
    parts = [bytes(file).split(b"/") for file in files]
    if all(len(path) == 1 for path in parts) and not any(map(_NUMBERED.fullmatch, index.titles)):
        stems = [os.fsencode(os.path.splitext(title)[0]) for title in index.titles]
        return np.array([stems[shard] + b"/" + bytes(file) for shard, file in zip(index.shards, files, strict=True)])
    flat = [index for index, path in enumerate(parts) if len(path) == 1]
    if flat:
        raise UserError(
            f"{root}: images without a class, such as {os.fsdecode(files[flat[0]])}: no .cls or .json beside them, and "
            "no folder; write KEY.cls with the class beside each KEY.jpg, or put them into class folders"
        )
    depth = 0
    while len({path[depth] for path in parts}) == 1 and all(len(path) > depth + 2 for path in parts):
        depth += 1
    if depth:
        above = os.fsdecode(b"/".join(parts[0][:depth]))
        _logger.info(f"{root}: all images are in the folder {above}: the classes are the folders in it")
    return np.array([b"/".join(path[depth:]) for path in parts])


def _apart(files: NDArray[Any], shards: NDArray[Any], titles: Sequence[str]) -> NDArray[Any]:
    """Names of images of which no two are alike: with that of the shard, where keys count anew in each of them."""
    if len(np.unique(files)) == len(files):
        return files
    return np.array(
        [os.fsencode(titles[shard]) + b"/" + bytes(file) for shard, file in zip(shards, files, strict=True)]
    )
