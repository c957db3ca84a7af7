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
from ..files import paths
from .samples import FolderSamples, Samples

MOST = 100_000  # images of both splits that are compared: of more, the first bytes alone take minutes from a disk
_START = 1 << 12  # bytes: most files of one size differ in their first ones

log = logging.getLogger("mindghost")


class _Group(NamedTuple):
    """Paths of files that may be one: those of the training split, and those of the validation split."""

    train: Sequence[str]
    val: Sequence[str]


def say_shared(train: Samples, val: Samples) -> None:
    """Log one line where validation images are the same file as training images. Layouts without files are left out."""
    if not isinstance(train, FolderSamples) or not isinstance(val, FolderSamples) or len(train) + len(val) > MOST:
        return
    if not (found := shared(train, val)):
        return
    ours, theirs = found[0]
    example = f"{ours}, which is in both" if ours == theirs else f"{ours}, which is {theirs}"
    log.warning(
        f"{len(found):,} of the {len(val):,} validation images are also training images (files of equal content), such "
        f"as {example}: the accuracy is too high"
    )


def shared(train: FolderSamples, val: FolderSamples) -> list[tuple[str, str]]:
    """Paths of the validation images whose content a training image has, each with the path of such a one.

    Only files of one size are opened, and only those that begin alike are read as a whole.
    """
    ours, theirs = (list(map(samples.name, range(len(samples)))) for samples in (train, val))
    both = set(ours) & set(theirs)
    groups = [_Group([path for path in ours if path not in both], [path for path in theirs if path not in both])]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        groups = list(_parted(groups, lambda paths: map(_size, paths)))
        for read in (_start, _whole):
            groups = list(_parted(groups, lambda paths, read=read: pool.map(read, paths)))  # type: ignore[misc]
    same = [(path, group.train[0]) for group in groups for path in group.val]
    return sorted([*same, *((path, path) for path in both)])


def _parted(groups: Iterable[_Group], values: Callable[[Sequence[str]], Iterable[Hashable | None]]) -> Iterator[_Group]:
    """Smaller groups, of files with one value; those of one split alone, and files without a value, are left out."""
    for group in groups:
        found: dict[Hashable, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for split, files in enumerate(group):
            for path, value in zip(files, values(files), strict=True):
                if value is not None:
                    found[value][split].append(path)
        yield from (_Group(*both) for both in found.values() if all(both))


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _start(path: str) -> bytes | None:
    try:
        with paths.open_file(path, "") as file:
            return file.read(_START)
    except (OSError, UserError):
        return None


def _whole(path: str) -> bytes | None:
    try:
        return hashlib.sha256(paths.read(path, "")).digest()
    except (OSError, UserError):
        return None
