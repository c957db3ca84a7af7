"""What a split holds: its classes, and for each image a label and a way to its pixels."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import images, jpeg

if TYPE_CHECKING:
    from ..config import Config
    from .examples import Examples

_Kind = TypeVar("_Kind", bound="Samples")
_HALF = 1 << 63


@dataclass(frozen=True, eq=False)
class Samples(ABC):
    """The samples of one split.

    Attributes:
        classes: names in label order.
        labels: int32, (n,); where an image has several labels, float32, (n, classes), 1 for each that it has.
        numbered: the names are the numbers of the labels, because no others are known.
        weights: how much each sample counts in the training loss, float32, (n,), over 0; None where all count alike.
    """

    classes: tuple[str, ...]
    labels: NDArray[Any]
    weights: NDArray[Any] | None = field(default=None, kw_only=True)
    numbered: bool = field(default=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self: _Kind, indices: NDArray[Any]) -> _Kind:
        """Some of the samples, in the order of `indices`: every array that has an entry for each sample is cut."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        cut = {name: column[indices] for name, column in columns.items() if _is_column(column, len(self))}
        return replace(self, **cut)

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """Returns the pixels of a sample, to be cut from: what is left over may never be decoded.

        Raises:
            UserError: the image can't be read; cutting may raise it, too.
        """
        return self.read(index)

    def examples(self, config: Config, training: bool) -> Examples:
        """Returns what makes them what a network gets, by the transforms of a configuration."""
        # Not at the top: it imports MindSpore.
        from .examples import Examples

        return Examples(config, self, training)

    @abstractmethod
    def read(self, index: int) -> NDArray[Any]:
        """Returns the pixels of a sample: uint8, (height, width, 3) RGB, or (height, width, 1) for MNIST.

        Raises:
            UserError: the image can't be read; the message names it.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns what to call a sample in messages: its path, or e.g. "cifar10 train #17"."""

    @abstractmethod
    def _identity(self) -> NDArray[Any]:
        """What tells one set of images from another."""

    def digest(self) -> str:
        """Returns a sha256 of classes, labels, weights and images (by path below the split for image files)."""
        parts = [json.dumps(self.classes).encode(), self.labels.tobytes(), self._identity().tobytes()]
        if self.weights is not None:
            parts.append(self.weights.tobytes())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def told(self) -> str:
        """Returns in a few words which samples these are, others for others: ranks compare them."""
        return f"{len(self):,} of {len(self.classes):,} classes (digest {self.digest()[:12]})"


def _is_column(value: object, count: int) -> bool:
    return isinstance(value, np.ndarray) and value.shape[:1] == (count,)


@dataclass(frozen=True, eq=False)
class FileSamples(Samples):
    """Image files, wherever they lie, which are looked at before the first epoch (see `scan`).

    Attributes:
        root: the place of the split, for messages; what was found out about its images is remembered for it.
        files: what each image is called below root, as bytes, no two alike: strings would be copied into every worker.
        decoder: of JPEG files, in place of Pillow.
        scope: which images of a place these are, where there are others: what is remembered of them is kept apart.
    """

    root: str
    files: NDArray[Any]
    decoder: jpeg.Decoder | None = None
    scope: str = field(default="", kw_only=True)

    def read(self, index: int) -> NDArray[Any]:
        """The pixels of a file, all of them."""
        return np.asarray(self.open(index))

    def name(self, index: int) -> str:
        """The path of the file."""
        return os.path.join(self.root, os.fsdecode(self.files[index]))

    @property
    def title(self) -> str:
        """What to call all of them in messages."""
        return self.root

    def where(self, index: int) -> str:
        """What names the image, for messages, where that is not the place that it lies in: a line of a list."""
        return ""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises UserError where they can't be read."""

    def start(self, index: int, count: int) -> bytes:
        """The first bytes of a file. Raises UserError where they can't be read."""
        return self.content(index)[:count]

    @abstractmethod
    def size_and_time(self, index: int) -> tuple[int, int]:
        """Two numbers, of 64 bits, that change when a file changes; -1 and 0 where they can't be had."""

    @abstractmethod
    def check(self, index: int, decode: bool) -> bool:
        """Read the header of an image, with `decode` its pixels too; whether the file holds more images than that one.

        Raises UserError for one that is not usable.
        """

    def look(self, index: int, decode: bool) -> tuple[bool, str]:
        """As `check`, and what to remember of a sample beside: a short text, as long as its files stay as they are."""
        return self.check(index, decode), ""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as stored, from its header. Raises UserError for one that is not usable."""

    def file_sizes(self) -> NDArray[Any]:
        """Bytes of each image file, int64 (n,)."""
        return np.fromiter((self.size_and_time(index)[0] for index in range(len(self))), np.int64, len(self))

    def reading_order(self, indices: NDArray[Any]) -> NDArray[Any]:
        """These indices in the order in which their images are read fastest, one after the other."""
        return indices

    def _identity(self) -> NDArray[Any]:
        return self.files


@dataclass(frozen=True, eq=False)
class FolderSamples(FileSamples):
    """Image files below class folders: `files` are their paths."""

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """The pixels of a file, of which a JPEG file is decoded as far as they are asked for."""
        return images.open_image(self.name(index), self.decoder)

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises UserError where they can't be read."""
        return images.content(self.name(index))

    def start(self, index: int, count: int) -> bytes:
        """The first bytes of a file. Raises UserError where they can't be read."""
        return images.start(self.name(index), count)

    def size_and_time(self, index: int) -> tuple[int, int]:
        """The size of a file in bytes, and its time of change."""
        try:
            found = os.stat(self.name(index))
        except OSError:  # opening it says what is wrong with it
            return -1, 0
        return found.st_size, time_of_change(found)

    def check(self, index: int, decode: bool) -> bool:
        """Read the header of an image, with `decode` its pixels too; see `images.check_image`."""
        return images.check_image(self.name(index), decode)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as stored, from its header. Raises UserError for one that is not usable."""
        return images.size(self.name(index))


def time_of_change(found: os.stat_result) -> int:
    """When a file was changed, in ns, as a number of 64 bits."""
    # Times after 2262 do not fit: all that counts is that another time is another number.
    return (found.st_mtime_ns + _HALF) % (2 * _HALF) - _HALF


@dataclass(frozen=True, eq=False)
class ArraySamples(Samples):
    """Images in memory."""

    title: str
    pixels: NDArray[Any]  # uint8, (n, height, width, channels)

    def read(self, index: int) -> NDArray[Any]:
        """The pixels, which share memory with `pixels`."""
        return self.pixels[index]

    def name(self, index: int) -> str:
        """The title, and the index among the images."""
        return f"{self.title} #{index}"

    def _identity(self) -> NDArray[Any]:
        return self.pixels
