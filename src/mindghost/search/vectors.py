"""Vectors of images: what they are of, which network made them, and whether they are fit to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import json_text
from ..process.display import shown

# Bytes of a file's digest that are kept: the beginning of its sha256.
DIGEST_BYTES = 16
UNKNOWN = -1
DTYPES = ("float32", "float16")
# Of a float16, as an integer; and how its bits lie in a float32, whose exponents begin 112 lower.
_EXPONENT, _SIGN_AND_REST, _EXPONENTS_APART = np.int16(0x7C00), np.int32(-0x70002000), np.float32(2.0**112)
_BLOCK = 1 << 20  # bytes that are looked at at once: a processor's cache has room for them
# How far the length of a vector may be from 1: float16 rounds to 1e-3 of each of its numbers.
_TOLERANCE = 1e-2
_ABOUT_NETWORKS = "embed the images again with the network of the index, or build an index of their own"


@dataclass(frozen=True)
class Origin:
    """The network that made vectors: those of two networks have nothing to do with each other.

    Attributes:
        model: name of the network.
        weights: sha256 of the checkpoint; of an exported file that of the checkpoint that it was made of.
        precision: "float32", or what a quantised file computes in, such as "int8".
        preprocessing: from a file to what the network gets (`Task.describe_evaluation`).
    """

    model: str
    weights: str
    precision: str
    preprocessing: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return dict(vars(self))

    @classmethod
    def of_record(cls, value: Any, source: str) -> Origin | None:
        """The reverse; None for None. Raises UserError, which names the source, for anything else."""
        if value is None:
            return None
        kinds = {"model": str, "weights": str, "precision": str, "preprocessing": dict}
        if not isinstance(value, dict) or any(not isinstance(value.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"{source}: does not say which network made its vectors; make it again")
        return cls(**{key: value[key] for key in kinds})

    def __str__(self) -> str:
        return f"{shown(self.model)[:60]} (weights {shown(self.weights)[:12]})"

    def difference(self, other: Origin) -> str:
        """In which way another network, or its preprocessing, is not this one; empty where it is."""
        for key in ("model", "weights", "precision"):
            if getattr(self, key) != getattr(other, key):
                return f"{key} {shown(getattr(self, key))[:60]} and {shown(getattr(other, key))[:60]}"
        mine, theirs = (json_text.parse(json_text.dumps(dict(each.preprocessing)), "", "") for each in (self, other))
        # Texts explain the numbers, and may be worded anew.
        for key in sorted({*mine, *theirs}):
            here, there = mine.get(key), theirs.get(key)
            if here != there and not (isinstance(here, str) and isinstance(there, str) and key.endswith("_rule")):
                return f"preprocessing {shown(key)[:40]}: {shown(str(here))[:60]} and {shown(str(there))[:60]}"
        return ""


def check_same(own: Origin | None, other: Origin | None, own_name: str, other_name: str) -> None:
    """Raise UserError, which names both files, unless their vectors are of one network, or neither says of which."""
    if own is None and other is None:
        return
    if own is None or other is None:
        silent, known = (own_name, other_name) if own is None else (other_name, own_name)
        raise UserError(f"{silent}: does not say which network made its vectors, and {known} does; {_ABOUT_NETWORKS}")
    if difference := own.difference(other):
        raise UserError(f"{other_name}: not of the network of {own_name}: {difference}; {_ABOUT_NETWORKS}")


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of images, with what is known of these.

    Attributes:
        vectors: float32 or float16, (n, dimensions), of length 1.
        paths: what the images are called, text, (n,).
        labels: int32, (n,): indices of `classes`; -1 where no class is known.
        classes: names in label order; empty where none are known.
        sizes, times: bytes of each image file and when it was changed, int64, (n,); -1 and 0 where that is not known.
        digests: the first 16 bytes of the sha256 of each image file, uint8, (n, 16); zeros where that is not known.
        origin: the network; None where a file does not say.
    """

    vectors: NDArray[Any]
    paths: NDArray[Any]
    labels: NDArray[Any]
    classes: tuple[str, ...] = ()
    sizes: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    times: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int64))
    digests: NDArray[Any] = field(default_factory=lambda: np.empty((0, DIGEST_BYTES), np.uint8))
    origin: Origin | None = None

    def __post_init__(self) -> None:
        """Fill in what is not known of the files."""
        count = len(self.vectors)
        unknown = {
            "sizes": np.full(count, -1, np.int64),
            "times": np.zeros(count, np.int64),
            "digests": np.zeros((count, DIGEST_BYTES), np.uint8),
        }
        for name, values in unknown.items():
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return self.vectors.shape[1]

    def take(self, indices: NDArray[Any]) -> Vectors:
        """Some of them, in the order of `indices`, int or bool."""
        columns = ("vectors", "paths", "labels", "sizes", "times", "digests")
        return replace(self, **{name: getattr(self, name)[indices] for name in columns})

    def class_of(self, index: int) -> str | None:
        """The name of an image's class; None where it is not known."""
        label = int(self.labels[index])
        return self.classes[label] if 0 <= label < len(self.classes) else None

    def relabelled(self, classes: Sequence[str]) -> Vectors:
        """The same with labels that index `classes`, mapped by name; -1 for a class that is not among them."""
        label_of = {name: label for label, name in enumerate(classes)}
        mapping = np.array([*(label_of.get(name, UNKNOWN) for name in self.classes), UNKNOWN], np.int32)
        # The last entry stands for -1.
        return replace(self, labels=mapping[np.clip(self.labels, -1, len(self.classes))], classes=tuple(classes))


def none_of(dimensions: int, dtype: str, origin: Origin | None, classes: Sequence[str] = ()) -> Vectors:
    """No vectors at all, of a network."""
    empty = np.empty(0, np.int32)
    return Vectors(np.empty((0, dimensions), dtype), empty.astype("U1"), empty, tuple(classes), origin=origin)


def blocks(vectors: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Float32 copies of some rows at a time, of vectors that may be float16, mapped, or not aligned."""
    rows = max(1, _BLOCK // (4 * max(1, vectors.shape[1])))
    for start in range(0, len(vectors), rows):
        yield np.require(widened(vectors[start : start + rows]), np.float32, ["C", "A"])


def widened(numbers: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in float32, where they are in float16; others as they are.

    NumPy's own conversion looks at them one by one, and takes six times as long.
    """
    if numbers.dtype != np.float16:
        return numbers
    bits = numbers.view(np.int16)
    if ((bits & _EXPONENT) == _EXPONENT).any():  # NaN and infinities, whose exponents float32 has in another place
        return numbers.astype(np.float32)
    moved = bits.astype(np.int32)
    moved <<= 13
    moved &= _SIGN_AND_REST
    found = moved.view(np.float32)
    found *= _EXPONENTS_APART
    return found


def check(vectors: NDArray[Any], name: str) -> None:
    """Raise UserError, which names the file, for vectors that cannot be compared: not finite, or not of length 1.

    One of zeros alone is like nothing, and is let through.
    """
    remedy = "embed the images again with `mindghost embed`"
    row = 0
    for block in blocks(vectors):
        squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        if not np.isfinite(squares).all():
            bad = row + int(np.flatnonzero(~np.isfinite(squares))[0])
            raise UserError(f"{name}: its vector {bad} is not finite (NaN or infinity); {remedy}")
        lengths = np.sqrt(squares)
        wrong = (np.abs(lengths - 1) > _TOLERANCE) & (lengths != 0)
        if wrong.any():
            bad = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"{name}: its vector {row + bad} has the length {lengths[bad]:.4g}, expected 1; divide each by its "
                "length, or embed the images with `mindghost embed`"
            )
        row += len(block)
