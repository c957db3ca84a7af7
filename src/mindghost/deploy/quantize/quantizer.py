"""What makes an int8 file of an exported one: of each format by the library that its runtime's makers keep."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from ...errors import UserError
from ...files import scratch
from ...inference.batches import filled
from ...inference.formats import Format

# Contents of the files that make one up, in the order of `Format.parts`.
Parts = tuple[bytes, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution or the classifier, with the operators up to the next one.

    Attributes:
        name: of its weights.
        nodes: names of its operators.
        cost: what it does to the logits when it alone is int8: root mean square of their change, as a share of that of
            the logits; None where it was not measured.
    """

    name: str
    nodes: tuple[str, ...]
    cost: float | None = None


class Quantizer(ABC):
    """An exported file in float, from which others are made.

    Attributes:
        form: its format.
        modes: ways to choose the scales, by name.
        layers: that can be left in float, in the order of the file; empty where none can be named.
    """

    form: ClassVar[Format]
    modes: ClassVar[tuple[str, ...]]
    layers: Sequence[Layer] = ()

    @abstractmethod
    def calibrate(self, inputs: NDArray[Any]) -> None:
        """Take the images, float32 (N, C, H, W), on which the ranges of activations are measured."""

    @abstractmethod
    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """The file with some layers in int8."""

    def costs(self, mode: str, inputs: NDArray[Any]) -> Sequence[Layer]:
        """The layers with their costs on images (N, C, H, W), the dearest first."""
        return ()

    @abstractmethod
    def float16(self) -> Parts:
        """The file with weights of half the size; its input and output stay float32."""

    def said(self, parts: Parts) -> Mapping[str, Any]:
        """What the description of a file says otherwise than that of the file in float, or beside it."""
        return {}

    @abstractmethod
    def described(self, parts: Parts, description: str) -> Parts:
        """The same file with another description."""


def batches(inputs: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Images (N, ...) in batches of one size: the last one is filled up with copies, which change no range."""
    return [filled(inputs[start : start + size], size) for start in range(0, len(inputs), size)]


def already_smaller(path: Path) -> UserError:
    """The error for a file that was made by quantising."""
    return UserError(f"{path}: int8 or float16 already; give the file that `mindghost export` wrote")


@contextlib.contextmanager
def as_file(form: Format, parts: Parts) -> Iterator[Path]:
    """A file with these contents, for the time of the `with` block."""
    with scratch.folder("quantize") as folder:
        path = folder / f"model{form.suffix}"
        for part, content in zip(form.parts(path), parts, strict=True):
            part.write_bytes(content)
        yield path
