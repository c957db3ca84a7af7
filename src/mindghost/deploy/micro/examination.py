"""A file is run by tflite-micro beside LiteRT, and held to a budget of flash and RAM; its time is estimated."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import scratch
from ...inference.formats import Step
from ...inference.formats.litert_file import LITERT
from . import interpreter, vela
from .graph import Contents, Layer, contents
from .interpreter import Arena
from .target import Target
from .vela import Estimate

log = logging.getLogger("mindghost")

# Images on which the two interpreters are compared, at most, and how many integers an answer may be off: they round
# products of maps and gates otherwise, which came to 2 with random weights.
_IMAGES = 32
_TOLERANCE = 8


@dataclass(frozen=True)
class Findings:
    """What was found of a file.

    Attributes:
        target: that it is for.
        arena: that tflite-micro takes.
        operators: how often each kind is there.
        largest: tensor in memory, and of the weights.
        images: on which tflite-micro was compared with LiteRT's reference operators.
        difference: the largest one between their answers, in steps of the output's integers.
        interpreter: version of tflite-micro.
        estimate: Vela's; None where it does not take the file.
    """

    target: Target
    arena: Arena
    operators: dict[str, int]
    largest: tuple[Layer, Layer]
    images: int
    difference: int
    interpreter: str
    estimate: Estimate | None

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        memory, weights = ({"name": each.name, "shape": each.shape, "size": each.size} for each in self.largest)
        return {
            "flash": self.target.flash,
            "ram": self.target.ram,
            "arena": asdict(self.arena),
            "operators": self.operators,
            "largest": {"memory": memory, "weights": weights},
            "interpreter": f"tflite-micro {self.interpreter}",
            "compared": {"images": self.images, "difference": self.difference},
            "estimate": None if self.estimate is None else asdict(self.estimate),
        }


def check_libraries() -> None:
    """Raise UserError where one is missing."""
    interpreter.version()
    vela.version()


def examine(path: Path, graph: bytes, images: NDArray[Any], target: Target) -> Findings:
    """Run a file as a microcontroller would.

    Args:
        path: that messages name.
        graph: the file, with input and output in int8.
        images: (N, C, H, W) float32, some of which it is run on.
        target: what it is held to.

    Raises UserError where an operator is no integer one, or lacking in tflite-micro, where that answers otherwise than
    LiteRT, or where the budget is exceeded.
    """
    found = contents(graph)
    check_integer(path, found)
    check_flash(path, len(graph), found, target)
    images = images[:_IMAGES]
    assert found.steps is not None  # check_integer has seen to it
    taken, given = found.steps
    integers = taken.integers(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    arena, answers = interpreter.run(path, graph, found, integers)
    _check_ram(path, arena, found, target)
    difference = _difference(graph, images, given, answers)
    if difference > _TOLERANCE:
        raise UserError(
            f"{path}: not kept: tflite-micro's answers are up to {difference} steps off LiteRT's, over {_TOLERANCE}; "
            f"use another version than tflite-micro {interpreter.version()}"
        )
    return Findings(
        target,
        arena,
        found.counts,
        (found.largest(constant=False), found.largest(constant=True)),
        len(images),
        difference,
        interpreter.version(),
        _estimate(path, graph, target),
    )


def _difference(graph: bytes, images: NDArray[Any], given: Step, answers: NDArray[Any]) -> int:
    """Steps between the answers of tflite-micro and of LiteRT's reference operators, at most."""
    with scratch.folder("micro") as folder:
        file = folder / "model.tflite"
        file.write_bytes(graph)
        run = LITERT.network(file)
        expected = np.concatenate([run(image[np.newaxis]) for image in images])
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    return int(np.abs(given.integers(expected).astype(int) - answers.astype(int)).max())


def check_integer(path: Path, found: Contents) -> None:
    """Raise UserError where an operator computes with floats."""
    operator = next((operator for operator in found.operators if operator.is_float), None)
    if operator is None and found.steps is None:
        raise UserError(
            f"{path}: AI Edge Quantizer leaves its input or output without a scale; use another version of it"
        )
    if operator is not None:
        raise UserError(
            f"{path}: AI Edge Quantizer leaves the operator {operator.kind} of layer {operator.output} in float, which "
            "is no file for microcontrollers; give a network without it"
        )


def check_flash(path: Path, size: int, found: Contents, target: Target) -> None:
    """Raise UserError where a file of some size is too large."""
    if size > target.flash:
        raise UserError(
            f"{path}: nothing written: the int8 file takes {size:,} bytes, {size - target.flash:,} over --flash "
            f"{target.flash:,}; the largest of its weights are {_largest(found, constant=True)}: take a narrower "
            "network (`mindghost prune`, the key channels), or give more"
        )


def _check_ram(path: Path, arena: Arena, found: Contents, target: Target) -> None:
    if arena.total > target.ram:
        raise UserError(
            f"{path}: nothing written: tflite-micro's arena takes {arena.total:,} bytes, {arena.total - target.ram:,} "
            f"over --ram {target.ram:,}; the largest tensor is {_largest(found, constant=False)}: train at a smaller "
            "image_resize, take a narrower network, or give more"
        )


def _largest(found: Contents, constant: bool) -> str:
    layer = found.largest(constant)
    return f"{layer}, {layer.size:,} bytes"


def _estimate(path: Path, graph: bytes, target: Target) -> Estimate | None:
    try:
        return vela.estimate(path, graph, target.accelerator)
    except UserError as error:
        # Without it, the file is as good.
        log.warning(f"no estimate: {error}")
        return None
