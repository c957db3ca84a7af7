"""What is in a LiteRT file: its operators and tensors, and its weights where a microcontroller finds them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ...inference.formats import Step
from ..litert import tables

# Types of tensors -> bytes of a value. What is not here is counted with four.
_BYTES = {"BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FLOAT16": 2, "BFLOAT16": 2, "INT64": 8}
_FLOATS = ("FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64")


@dataclass(frozen=True)
class Layer:
    """A tensor of a file.

    Attributes:
        name: that other programs show, too.
        kind: type of its values, in LiteRT's words.
        shape: with channels last.
        constant: it lies in the file, and not in the memory that an inference takes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    constant: bool

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * _BYTES.get(self.kind, 4)

    def __str__(self) -> str:
        return f"{self.name!r} ({' x '.join(map(str, self.shape)) or 'one value'})"


@dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        kind: in LiteRT's words, such as CONV_2D.
        output: what it makes.
        is_float: it takes or makes numbers that are no integers.
    """

    kind: str
    output: Layer
    is_float: bool


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Attributes:
        operators: in the order in which they run.
        tensors: all of them.
        steps: how integers stand for numbers in the input and the output; None where they do not.
    """

    operators: tuple[Operator, ...]
    tensors: tuple[Layer, ...]
    steps: tuple[Step, Step] | None

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind of operator is there, the most frequent first."""
        return dict(Counter(operator.kind for operator in self.operators).most_common())

    def largest(self, constant: bool) -> Layer:
        """The largest tensor of those in the file, or of those in memory."""
        return max((tensor for tensor in self.tensors if tensor.constant == constant), key=lambda tensor: tensor.size)


def contents(graph: bytes) -> Contents:
    """What is in a LiteRT file."""
    from ai_edge_litert import schema_py_generated as schema

    model = tables.read(graph)
    kinds, types = tables.names(schema.BuiltinOperator), tables.names(schema.TensorType)
    body = model.subgraphs[0]
    tensors = tuple(
        Layer(
            tensor.name.decode(errors="replace"),
            types.get(tensor.type, str(tensor.type)),
            tuple(map(int, () if tensor.shape is None else tensor.shape)),
            tables.content(model.buffers[tensor.buffer], graph) is not None,
        )
        for tensor in body.tensors
    )

    def kind(index: int) -> str:
        code = model.operatorCodes[index]
        number = tables.kind(code)
        return kinds.get(number, str(number)) if not code.customCode else code.customCode.decode(errors="replace")

    taken, given = (_step(body.tensors[ends[0]]) for ends in (body.inputs, body.outputs))
    return Contents(
        tuple(
            Operator(
                kind(operator.opcodeIndex),
                tensors[operator.outputs[0]],
                any(tensors[end].kind in _FLOATS for end in (*operator.inputs, *operator.outputs) if end >= 0),
            )
            for operator in body.operators
        ),
        tensors,
        None if taken is None or given is None else (taken, given),
    )


def inlined(graph: bytes) -> bytes:
    """A file with all of its weights among its tables, 16 bytes aligned.

    AI Edge Quantizer puts the weights of files from 256 kB on behind the tables, where LiteRT finds them, and
    tflite-micro does not: it takes them for tensors without values, and computes something else without a word.
    """
    model = tables.read(graph)
    tables.take_in(model, graph)
    return tables.written(model, len(graph))


def _step(tensor: Any) -> Step | None:
    kept = tensor.quantization
    if kept is None or kept.scale is None or len(kept.scale) != 1:
        return None
    return Step(float(kept.scale[0]), int(kept.zeroPoint[0]))
