"""Images that are the same file in two splits: the accuracy on them says nothing about other images."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..errors import UserError
from .samples import FileSamples, FolderSamples, Samples
from .tar import TarSamples

MOST = 100_000  # images of both splits that are compared: of more, the first bytes alone take minutes from a disk
_START = 1 << 12  # bytes: most files of one size differ in their first ones

_KINDS = (FolderSamples, TarSamples)

log = logging.getLogger("mindghost")


class _Image(NamedTuple):
    """One of some samples."""

    samples: FileSamples
    number: int

    @property
    def name(self) -> str:
        """What it is called."""
        return self.samples.name(self.number)


class _Group(NamedTuple):
    """Images that may be one: those of the training split, and those of the validation split."""

    train: Sequence[_Image]
    val: Sequence[_Image]


def say_shared(train: Samples, val: Samples) -> None:
    """Log one line where validation images are the same file as training images.

    Layouts in which the size of a file is not known without reading it are left out.
    """
    if not (isinstance(train, _KINDS) and isinstance(val, _KINDS)) or len(train) + len(val) > MOST:
        return
    if not (found := shared(train, val)):
        return
    ours, theirs = found[0]
    example = f"{ours}, which is in both" if ours == theirs else f"{ours}, which is {theirs}"
    log.warning(
        f"{len(found):,} of the {len(val):,} validation images are also training images (files of equal content), such "
        f"as {example}: the accuracy is too high"
    )


def shared(train: FileSamples, val: FileSamples) -> list[tuple[str, str]]:
    """Paths of the validation images whose content a training image has, each with the path of such a one.

    Only files of one size are opened, and only those that begin alike are read as a whole.
    """
    ours, theirs = (
        {samples.name(index): _Image(samples, index) for index in range(len(samples))} for samples in (train, val)
    )
    both = set(ours) & set(theirs)
    groups = [_Group(*([image for name, image in split.items() if name not in both] for split in (ours, theirs)))]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        groups = list(_parted(groups, lambda images: map(_size, images)))
        for read in (_start, _whole):
            groups = list(_parted(groups, lambda images, read=read: pool.map(read, images)))  # type: ignore[misc]
    same = [(image.name, group.train[0].name) for group in groups for image in group.val]
    return sorted([*same, *((path, path) for path in both)])


def _parted(
    groups: Iterable[_Group], values: Callable[[Sequence[_Image]], Iterable[Hashable | None]]
) -> Iterator[_Group]:
    """Smaller groups, of files with one value; those of one split alone, and files without a value, are left out."""
    for group in groups:
        found: dict[Hashable, tuple[list[_Image], list[_Image]]] = defaultdict(lambda: ([], []))
        for split, images in enumerate(group):
            for image, value in zip(images, values(images), strict=True):
                if value is not None:
                    found[value][split].append(image)
        yield from (_Group(*both) for both in found.values() if all(both))


def _size(image: _Image) -> int | None:
    size, _ = image.samples.size_and_time(image.number)
    return None if size < 0 else size


def _start(image: _Image) -> bytes | None:
    try:
        return image.samples.start(image.number, _START)
    except UserError:
        return None


def _whole(image: _Image) -> bytes | None:
    try:
        return hashlib.sha256(image.samples.content(image.number)).digest()
    except UserError:
        return None
