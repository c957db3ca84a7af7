"""Images that are there twice, within a split or in two of them: equal pixels, or nearly the same picture.

Equal means equal pixels, once decoded and turned upright: a file that was copied, renamed, or saved again without loss.
Near are two images by what they look like (`signature`), and, where there is a network, by its embeddings. Images
that are near each other, directly or by way of others, are one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csgraph

from ..config import Config
from ..data.evaluation import workers_of
from ..data.parts import in_parts
from ..data.samples import Samples
from ..errors import UserError
from ..process import resources
from . import pairs as near_pairs
from . import signature
from .pairs import Forest, Pairs
from .reading import ReadImages
from .signature import Signatures
from .vectors import DIGEST_BYTES, Vectors

TRAIN = "train"
# What a pair is near by, best first: the numbers are those of `Pairs.kind`.
HOW = SAME, SIMILAR, MIRRORED, NETWORK = ("same", "similar", "mirrored", "network")
# Distances up to which two images are near: 1 - cosine of what they look like, and of their embeddings.
DISTANCE, NETWORK_DISTANCE = 0.1, 0.01
# Mean difference of the mean colours of two images, in levels, up to which a like structure makes them near.
_COLOURS = 32

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Looked:
    """Images, once they were looked at: those that can be read.

    Attributes:
        images: all of them.
        splits: name of the split of each of all images; empty where there is none.
        rows: numbers of those that can be read, int64 (n,).
        digests: of their pixels, uint8 (n, 16).
        sizes: pixels of each of them, int64 (n,).
        signatures: what they look like.
        problems: why others cannot be read, by their names.
    """

    images: ReadImages
    splits: tuple[str, ...]
    rows: NDArray[Any]
    digests: NDArray[Any]
    sizes: NDArray[Any]
    signatures: Signatures
    problems: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, row: int) -> str:
        """What an image is called."""
        return self.images.name(int(self.rows[row]))

    def split(self, row: int) -> str:
        """The split that an image is in."""
        return self.splits[self.rows[row]]

    def pixels(self, row: int) -> NDArray[Any]:
        """The pixels of an image, upright. Raises UserError where they cannot be read any more."""
        return self.images.read(int(self.rows[row]))

    def equal_in(self, split: str, rows: Sequence[int]) -> int:
        """How many of some images have the pixels of an image of another split."""
        there = {self.digests[row].tobytes() for row in range(len(self)) if self.split(row) == split}
        return sum(self.digests[row].tobytes() in there for row in rows)

    def label(self, row: int) -> int:
        """The number of an image's class; -1 where it is not known."""
        return int(self.images.labels[self.rows[row]])


class Member(NamedTuple):
    """An image of a group.

    Attributes:
        row: its number among those that were looked at.
        path: what it is called.
        split: that it is in; empty where there are none.
        label, name: its class; -1 and empty where it is not known.
        like: path of the image of the group that it is nearest to, by which it came here; empty for the first one.
        distance: to that image; 0 where the pixels are equal.
        how: one of `HOW`; empty for the first one.
    """

    row: int
    path: str
    split: str
    label: int
    name: str
    like: str = ""
    distance: float = 0.0
    how: str = ""


@dataclass(frozen=True)
class Group:
    """Images that are one, more or less: the one that the others are compared with comes first."""

    members: tuple[Member, ...]

    @property
    def leaks(self) -> bool:
        """Whether an image is in the training split as well as in another one."""
        splits = {member.split for member in self.members}
        return TRAIN in splits and len(splits) > 1

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that its images have, those of the first images first."""
        return tuple(dict.fromkeys(member.name for member in self.members if member.label >= 0))

    @property
    def contradicts(self) -> bool:
        """Whether its images have several classes: one of the labels is wrong."""
        return len(self.classes) > 1

    @property
    def superfluous(self) -> list[str]:
        """The images that training can do without: those that are also in another split, else all but the first."""
        trained = [member.path for member in self.members if member.split in (TRAIN, "")]
        return trained if self.leaks else trained[1:]


def look(splits: Mapping[str, Samples], config: Config, progress: Progress = lambda count: None) -> Looked:
    """Decode images, in parallel.

    Args:
        splits: samples by the name of their split.
        config: says how many threads read.
        progress: called with the number of images that were read.

    Raises:
        UserError: no image can be read.
        RunError: the machine lacks what reading takes.
    """
    images = ReadImages.of(list(splits.values()))
    names = tuple(name for name, samples in splits.items() for _ in range(len(samples)))
    rows: list[int] = []
    digests: list[bytes] = []
    sizes: list[int] = []
    signatures = []
    for found in _parts(images, config):
        if found.rows:
            signatures.append(signature.of(np.stack(found.pictures)))
        rows += found.rows
        digests += found.digests
        sizes += found.sizes
        progress(found.images)
    if not rows:
        raise UserError(f"{images.problem(0)}; and no other of {len(images):,} images can be read")
    return Looked(
        images,
        names,
        np.array(rows, np.int64),
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
        np.array(sizes, np.int64),
        Signatures.joined(signatures),
        {images.name(index): images.problems[index] for index in sorted(images.problems)},
    )


class _Part(NamedTuple):
    """What was found of some images; of each that can be read, the size is its number of pixels."""

    images: int
    rows: list[int]
    digests: list[bytes]
    sizes: list[int]
    pictures: list[NDArray[Any]]


def _parts(images: ReadImages, config: Config) -> Iterator[_Part]:
    """What there is to know of the images, some at a time, in their order; `problems` of them get the others."""

    def read(some: range) -> _Part:
        found = _Part(len(some), [], [], [], [])
        for index in some:
            try:
                with resources.spent_on(images.name(index)):
                    pixels = np.ascontiguousarray(images.read(index))
            except UserError as error:
                images.problems[index] = str(error)
                continue
            found.rows.append(index)
            found.digests.append(hashlib.sha256(b"%d %d %d " % pixels.shape + pixels.tobytes()).digest()[:DIGEST_BYTES])
            found.sizes.append(pixels.shape[0] * pixels.shape[1])
            found.pictures.append(signature.small(pixels))
        return found

    return in_parts(len(images), workers_of(config.num_parallel_workers), read)


# --- Pairs and groups


def find(
    looked: Looked,
    distance: float = DISTANCE,
    vectors: Vectors | None = None,
    network_distance: float = NETWORK_DISTANCE,
    progress: Progress = lambda count: None,
) -> list[Group]:
    """The groups of images that are equal, or near each other.

    Args:
        looked: the images.
        distance: up to which two are near by what they look like; negative: only equal ones are looked for.
        vectors: of the same images by a network; None: none is asked.
        network_distance: up to which two of these are near.
        progress: called with the number of images that were compared with all others; each counts once, and once
            more where there are vectors.

    Returns the groups: leaks first, then those with contradicting labels, then the larger ones.
    """
    forest = Forest(len(looked))
    first, equal_to = _equal(looked.digests)
    again = np.flatnonzero(first[equal_to] != np.arange(len(looked)))
    none = np.zeros(len(again))
    forest.add(Pairs.of(first[equal_to[again]], again, none, none + HOW.index(SAME)))
    if distance >= 0:
        for found in _similar(looked.signatures.take(first), distance, progress):
            forest.add(Pairs.of(first[found.first], first[found.second], found.distance, found.kind))
    if vectors is not None:
        of_path = {path: row for row, path in enumerate(vectors.paths.tolist())}
        rows = np.array([row for row in first.tolist() if looked.path(row) in of_path], np.int64)
        embedded = vectors.vectors[[of_path[looked.path(row)] for row in rows.tolist()]].astype(np.float32)
        for found in _near_by_network(embedded, network_distance, progress):
            forest.add(Pairs.of(rows[found.first], rows[found.second], found.distance, found.kind))
    pairs = forest.pairs()
    groups = [_group(looked, rows, inside) for rows, inside in near_pairs.groups(len(looked), pairs)]
    return sorted(groups, key=lambda group: (not group.leaks, not group.contradicts, -len(group.members)))


def _equal(digests: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first of each of some equal digests, and for each which of these it is equal to, both int64."""
    keys = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()
    _, first, equal_to = np.unique(keys, return_index=True, return_inverse=True)
    # In their order, not in that of their digests.
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[equal_to]


def _similar(signatures: Signatures, distance: float, progress: Progress) -> Iterator[Pairs]:
    for first, second, likeness in near_pairs.near(len(signatures), signatures.likeness, 1 - distance, progress):
        kept = signatures.colour_distance(first, second) <= _COLOURS
        first, second = first[kept], second[kept]
        kind = np.where(signatures.mirrored(first, second), HOW.index(MIRRORED), HOW.index(SIMILAR))
        yield Pairs.of(first, second, np.clip(1 - likeness[kept], 0, None), kind)


def _near_by_network(vectors: NDArray[Any], distance: float, progress: Progress) -> Iterator[Pairs]:
    def likeness(rows: slice, columns: slice) -> NDArray[Any]:
        found: NDArray[Any] = vectors[rows] @ vectors[columns].T
        return found

    for first, second, scores in near_pairs.near(len(vectors), likeness, 1 - distance, progress):
        yield Pairs.of(first, second, np.clip(1 - scores, 0, None), np.full(len(first), HOW.index(NETWORK)))


def _group(looked: Looked, rows: NDArray[Any], inside: Pairs) -> Group:
    """A group of some images, each with the one that it is nearest to on the way to the first one."""
    low, high = np.searchsorted(rows, inside.first), np.searchsorted(rows, inside.second)
    tree = coo_matrix((np.arange(1, len(inside) + 1), (low, high)), (len(rows), len(rows))).tocsr()
    root = _foremost(looked, rows)
    _, before = csgraph.breadth_first_order(tree, root, directed=False)
    members = [_member(looked, int(rows[root]))]
    others = []
    for place in np.delete(np.arange(len(rows)), root).tolist():
        like = int(before[place])
        pair = int(tree[min(place, like), max(place, like)]) - 1
        found = (looked.path(int(rows[like])), float(inside.distance[pair]), HOW[inside.kind[pair]])
        others.append(_member(looked, int(rows[place]), *found))
    return Group((*members, *sorted(others, key=lambda member: (member.distance, member.row))))


def _foremost(looked: Looked, rows: NDArray[Any]) -> int:
    """Which of some images stands for all: one that is not for training, else the largest; the first of such."""
    splits = [looked.split(row) for row in rows.tolist()]
    return min(range(len(rows)), key=lambda place: (splits[place] == TRAIN, -int(looked.sizes[rows[place]])))


def _member(looked: Looked, row: int, like: str = "", distance: float = 0.0, how: str = "") -> Member:
    label = looked.label(row)
    name = looked.images.classes[label] if label >= 0 else ""
    return Member(row, looked.path(row), looked.split(row), label, name, like, distance, how)
