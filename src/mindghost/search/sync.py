"""An index and a folder that changes: what is new in the folder, what has changed there, what is gone.

An image whose size and time of change are those in the index is taken for unchanged. Of another one the sha256 decides:
one that was merely touched, or copied back, is not embedded again, and one that was moved takes its vector along.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import images, walk
from ..data.samples import time_of_change
from ..errors import UserError
from . import vectors as vector_checks
from .index import Changes, Index, change
from .vectors import DIGEST_BYTES, UNKNOWN, Vectors

# Paths -> their vectors, and why others have none, by path.
Embed = Callable[[list[str]], tuple[Vectors, dict[str, str]]]
_NO_DIGEST = bytes(DIGEST_BYTES)


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did.

    Attributes:
        changes: of the index.
        embedded: images that the network looked at.
        reused: images with other times, or names, whose vectors were taken from the index.
        problems: why an image could not be read, by its path; its old vector is gone.
    """

    changes: Changes
    embedded: int
    reused: int
    problems: dict[str, str]


def sync(index: Index, folder: str, embed: Embed) -> Synced:
    """Bring what an index has of a folder up to date: images that are new, changed or gone.

    Entries of other folders stay. The caller holds the index's lock (`lock.writing`).

    Args:
        index: whose paths below the folder begin as `folder` does.
        folder: as it was called when its images were embedded.
        embed: makes vectors of the images that need new ones.

    Raises UserError where the folder cannot be listed, or the vectors are of another network.
    """
    here = _Here(index, folder)
    sorted_out = here.sorted_out([os.path.normpath(file) for file in walk.image_files(folder)])
    wanted, reused = sorted_out.wanted, sorted_out.reused
    vectors, problems = embed(wanted) if wanted else (here.none(), {})
    vectors = replace(vectors, labels=here.labels(vectors.paths.tolist()), classes=index.content.classes)
    # What is embedded or taken over replaces its old entry; of the others, nothing stays.
    added = _joined(here.taken_over(reused), vectors)
    names = set(added.paths.tolist())
    gone = [str(index.content.paths[row]) for file, row in here.rows.items() if file not in sorted_out.kept]
    changes = change(index, added, [name for name in gone if name not in names], name=folder)
    return Synced(changes, len(vectors), len(reused), problems)


@dataclass(frozen=True)
class _SortedOut:
    """The files of a folder: unchanged; with a row that has their vector, and their size and time; to be embedded."""

    kept: set[str]
    reused: dict[str, tuple[int, tuple[int, int]]]
    wanted: list[str]


class _Here:
    """The entries of an index that lie below a folder."""

    def __init__(self, index: Index, folder: str) -> None:
        self._content, self._folder = index.content, folder
        top = os.path.normpath(folder)
        below = "" if top == os.curdir else top.rstrip("/") + "/"
        # By their paths as `walk` gives them, whatever dots and double slashes they were recorded with.
        normal = ((row, os.path.normpath(path)) for row, path in enumerate(index.content.paths.tolist()))
        inside = ((row, path) for row, path in normal if path.startswith(below) and (below or not os.path.isabs(path)))
        self.rows = {path: row for row, path in inside if below or not path.startswith("../")}

    def sorted_out(self, files: Sequence[str]) -> _SortedOut:
        """What is to be done with each file."""
        sizes, times, digests = self._content.sizes, self._content.times, self._content.digests
        known = {digest: row for row in self.rows.values() if (digest := digests[row].tobytes()) != _NO_DIGEST}
        found = _SortedOut(set(), {}, [])
        for file in files:
            row, state = self.rows.get(file), _state(file)
            if row is not None and state == (int(sizes[row]), int(times[row])):
                found.kept.add(file)
            elif known and (same := known.get(_digest(file))) is not None:
                found.reused[file] = same, state
            else:
                found.wanted.append(file)
        return found

    def taken_over(self, reused: Mapping[str, tuple[int, tuple[int, int]]]) -> Vectors:
        """The vectors of rows for files that have the same content; one that was moved may have another class."""
        rows = np.array([row for row, _ in reused.values()], np.int64)
        states = np.array([state for _, state in reused.values()], np.int64).reshape(len(rows), 2)
        moved = np.array([row != self.rows.get(file) for file, row in zip(reused, rows.tolist(), strict=True)], bool)
        found = self._content.take(rows)
        labels = np.where(moved, self.labels(list(reused)), found.labels)
        names = np.array(list(reused), str)
        return replace(found, paths=names, labels=labels, sizes=states[:, 0], times=states[:, 1])

    def none(self) -> Vectors:
        content = self._content
        return vector_checks.none_of(content.dimensions, content.vectors.dtype.name, content.origin, content.classes)

    def labels(self, files: Sequence[str]) -> NDArray[Any]:
        """The class of each file: the innermost of the folders that it lies in that has a class's name."""
        label_of = {name: label for label, name in enumerate(self._content.classes)}
        parents = (Path(os.path.relpath(file, self._folder)).parent.parts for file in files)
        labels = [next((label_of[part] for part in reversed(parts) if part in label_of), UNKNOWN) for parts in parents]
        return np.array(labels, np.int32)


def _joined(first: Vectors, second: Vectors) -> Vectors:
    columns = ("vectors", "paths", "labels", "sizes", "times", "digests")
    joined = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in columns}
    return replace(second, **joined)


def _state(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:  # reading it says what is wrong
        return -1, 0
    return status.st_size, time_of_change(status)


def _digest(file: str) -> bytes:
    try:
        return hashlib.sha256(images.content(file)).digest()[:DIGEST_BYTES]
    except UserError:  # embedding says what is wrong
        return _NO_DIGEST
