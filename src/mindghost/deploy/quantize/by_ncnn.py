"""ncnn's files. Its makers' quantiser is a C++ program that no package has; what it writes is little, and written here.

In an int8 file, a layer with weights has integers in place of them, what one is worth in each output channel, and what
its input is multiplied by before it becomes integers; all else, biases too, stays in float
(https://github.com/Tencent/ncnn/blob/master/docs/how-to-use-and-FAQ/quantized-int8-inference.md).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...inference.deployment import Deployment
from ...inference.formats.ncnn_file import NCNN, net_of
from .quantizer import Layer, Parts, Quantizer

# Before the weights of a layer: how they are written.
_FLOAT32, _FLOAT16, _INT8 = 0, 0x01306B47, 0x000D4B38
_WORD = 4  # bytes; weights of other sizes are filled up to whole ones
_LEVELS = 127
# Of 3x3 convolutions that ncnn may compute by Winograd's algorithm, whose sums of weights have to fit into bytes, too.
_WINOGRAD_LEVELS = 31
# The share of an input's values that its integers cover in the second mode: the others are cut off.
_COVERED = 0.9999
# Layer -> parameters with the number of its weights, whether there is a bias, and the number of scales. All have the
# number of outputs as 0 and how they are quantised as 8.
_WEIGHTED = {"Convolution": (6, 5, 0), "ConvolutionDepthWise": (6, 5, 7), "InnerProduct": (2, 1, 0)}
_QUANTIZED = 8


@dataclass(frozen=True)
class _Weighted:
    """A layer with weights.

    Attributes:
        kind: of ncnn's.
        line: its place in the text.
        input: the name of the map that it reads.
        weights: float32, a row for each scale.
        bias: as in the file.
        settings: its parameters.
    """

    kind: str
    line: int
    input: str
    weights: NDArray[np.float32]
    bias: bytes
    settings: dict[str, str]

    @property
    def levels(self) -> int:
        """The largest integer of its weights."""
        dense = self.kind == "Convolution" and self.settings.get("1") == self.settings.get("11") == "3"
        strides = {self.settings.get(key, "1") for key in ("3", "13", "2", "12")}
        return _WINOGRAD_LEVELS if dense and strides == {"1"} else _LEVELS

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """What each row of its weights is multiplied by."""
        largest = np.abs(self.weights).max(1)
        return (self.levels / np.where(largest > 0, largest, self.levels)).astype(np.float32)

    def integers(self) -> NDArray[np.int8]:
        """Its weights, (rows, weights of one)."""
        return np.rint(self.weights * self.scales[:, None]).astype(np.int8)


class NcnnQuantizer(Quantizer):
    """Weights symmetric, per output channel; inputs of layers symmetric, up to their largest value, or nearly all."""

    form = NCNN
    modes = ("largest", "nearly all")

    def __init__(self, deployed: Deployment) -> None:
        """Raises UserError where the file is damaged or not in float, or ncnn is missing."""
        self._net = net_of(deployed.path, 0)
        text, content = (part.read_bytes() for part in NCNN.parts(deployed.path))
        self._lines = text.decode().splitlines()
        try:
            self._weighted = list(_weighted(self._lines, content))
        except (ValueError, struct.error, IndexError) as error:
            message = f"{deployed.path}: not in float32, or with layers that no int8 is made of here"
            raise UserError(f"{message}: {error}") from error
        self._limits: dict[str, dict[str, float]] = {}

    def calibrate(self, inputs: NDArray[np.float32]) -> None:
        """See `Quantizer`."""
        names = sorted({layer.input for layer in self._weighted})
        found = np.array([self._seen(image, names) for image in inputs])
        for mode, values in zip(self.modes, (found[..., 0].max(0), found[..., 1].mean(0)), strict=True):
            self._limits[mode] = dict(zip(names, values.tolist(), strict=True))

    def _seen(self, image: NDArray[np.float32], names: Sequence[str]) -> list[tuple[float, float]]:
        """The largest size of a value of each map for an image, and the one that nearly all are below."""
        import ncnn

        (taken,) = self._net.input_names()
        with self._net.create_extractor() as extractor:
            extractor.set_light_mode(False)
            extractor.input(taken, ncnn.Mat(np.ascontiguousarray(image)).clone())
            maps = (np.abs(np.array(extractor.extract(name)[1])) for name in names)
            return [(float(sizes.max()), float(np.quantile(sizes, _COVERED))) for sizes in maps]

    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """See `Quantizer`."""
        lines, content = list(self._lines), bytearray()
        for layer in self._weighted:
            lines[layer.line] += f" {_QUANTIZED}=1"
            limit = self._limits[mode][layer.input]
            of_input = np.float32(_LEVELS / limit if limit > 0 else 1)
            content += _written(_INT8, layer.integers().tobytes()) + layer.bias
            content += layer.scales.tobytes() + of_input.tobytes()
        return _text(lines), bytes(content)

    def float16(self) -> Parts:
        """See `Quantizer`."""
        content = bytearray()
        for layer in self._weighted:
            content += _written(_FLOAT16, layer.weights.astype(np.float16).tobytes()) + layer.bias
        return _text(self._lines), bytes(content)

    def described(self, parts: Parts, description: str) -> Parts:
        """See `Quantizer`: there is no room for one."""
        return parts


def _weighted(lines: Sequence[str], content: bytes) -> Iterator[_Weighted]:
    """The layers with weights, in the order of the files. Raises ValueError where these do not fit each other."""
    place = 0

    def take(size: int) -> bytes:
        nonlocal place
        if size < 0 or place + size > len(content):
            raise ValueError("the weights end too early")
        place += size
        return content[place - size : place]

    for number, line in enumerate(lines[2:], 2):
        kind, name, *fields = line.split()
        if kind not in _WEIGHTED:
            continue
        inputs, outputs = int(fields[0]), int(fields[1])
        settings = dict(field.split("=", 1) for field in fields[2 + inputs + outputs :])
        count, biased, rows = (int(settings.get(str(key), 0)) for key in _WEIGHTED[kind])
        (written,) = struct.unpack("<I", take(_WORD))
        if written != _FLOAT32 or str(_QUANTIZED) in settings:
            raise ValueError(f"the weights of {name} are not in float32")
        weights = np.frombuffer(take(_WORD * count), "<f4").reshape(rows, -1)
        bias = take(_WORD * int(settings["0"]) if biased else 0)
        yield _Weighted(kind, number, fields[2], weights, bias, settings)
    if place != len(content):
        raise ValueError(f"{len(content) - place} bytes are left over")


def _written(kind: int, weights: bytes) -> bytes:
    return struct.pack("<I", kind) + weights.ljust(math.ceil(len(weights) / _WORD) * _WORD, b"\0")


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
