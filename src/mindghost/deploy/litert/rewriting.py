"""The operators of a LiteRT file become those of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import tables
from .plain import Rounding, Weight

# Layer -> the axis of output channels of its weight, and the axes of an ONNX weight in its order.
_LAYERS = {"CONV_2D": (0, (0, 2, 3, 1)), "DEPTHWISE_CONV_2D": (3, (1, 2, 3, 0)), "FULLY_CONNECTED": (0, (0, 1))}
# Operators that take and give integers of different steps, and how many maps they take.
_MAPS = {"ADD": 2, "MUL": 2, "MEAN": 1}
# Operators that give the values that they take, and zeros.
_HANDING_ON = ("RESHAPE", "TRANSPOSE", "PAD", "SQUEEZE", "EXPAND_DIMS")
# Operators that a ReLU behind them may be a part of.
_WITH_RELU = (*_LAYERS, "ADD", "MUL")
_RELU = 1  # of the format's activations
# The version of operators of integers, where it is not the first.
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "TRANSPOSE": 2, "ADD": 2, "MUL": 2, "MEAN": 2}
_VERSIONS |= {"PAD": 2, "CONCATENATION": 2, "QUANTIZE": 2, "DEQUANTIZE": 2}
_VERSION_PER_CHANNEL = 5  # of DEQUANTIZE


class Rewriting:
    """The tables of a file, while their operators become those of integers.

    Attributes:
        wanted: tensor -> how it is rounded.
        real: tensor -> the tensor of integers that stands for it.
        numbers: tensor -> the numbers that its integers stand for, where an operator makes them.
    """

    def __init__(self, model: Any, weights: Sequence[Weight], wanted: dict[int, list[Rounding]]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.model, self.body, self.weights = schema, model, model.subgraphs[0], weights
        self.kinds = tables.names(schema.BuiltinOperator)
        self.codes = {name: number for number, name in self.kinds.items()}
        self.wanted = wanted
        self.real: dict[int, int] = {}
        self.numbers: dict[int, int] = {}
        self.operators: list[Any] = []

    def run(self) -> None:
        """Rewrite all operators, in their order."""
        for operator in self.body.operators:
            # The library's are read-only.
            operator.inputs, operator.outputs = operator.inputs.copy(), operator.outputs.copy()
        self._join_relus()
        self._move_up()
        for tensor in self.body.inputs:
            self._round(int(tensor), int(tensor))
        for operator in self.body.operators:
            self._take(operator)
        for tensor in map(int, self.body.outputs):
            if tensor in self.real:
                self._add("DEQUANTIZE", self.real[tensor], tensor)
        self.body.operators = self.operators
        self._forget_unused()

    def _join_relus(self) -> None:
        """Have the operator before a ReLU do its work, where it can, also where others hand its values on."""
        made = {int(operator.outputs[0]): operator for operator in self.body.operators}
        kept = []
        for operator in self.body.operators:
            before = maker = made.get(int(operator.inputs[0])) if self._kind(operator) == "RELU" else None
            while maker is not None and self._kind(maker) in _HANDING_ON and self._is_alone(int(maker.outputs[0])):
                maker = made.get(int(maker.inputs[0]))
            if before is None or maker is None or not self._can_join(maker):
                kept.append(operator)
                continue
            maker.builtinOptions.fusedActivationFunction = _RELU
            before.outputs[0] = operator.outputs[0]
            made[int(operator.outputs[0])] = before
        self.body.operators = kept

    def _can_join(self, maker: Any) -> bool:
        """Whether an operator may end in a ReLU: nothing else reads what it makes, or rounds it."""
        output = int(maker.outputs[0])
        free = self._kind(maker) in _WITH_RELU and maker.builtinOptions.fusedActivationFunction == 0
        return free and self._is_alone(output) and output not in self.wanted

    def _is_alone(self, tensor: int) -> bool:
        """Whether one operator reads a tensor, and nobody else."""
        readers = sum(tensor in operator.inputs for operator in self.body.operators)
        return readers == 1 and tensor not in self.body.outputs

    def _move_up(self) -> None:
        """Round before values are handed on, and not behind: so that whatever makes them makes integers."""
        for operator in reversed(self.body.operators):
            source, output = int(operator.inputs[0]), int(operator.outputs[0])
            if self._kind(operator) not in _HANDING_ON or output not in self.wanted or source in self.wanted:
                continue
            if self._is_alone(source) and source not in self.body.inputs:
                self.wanted[source] = self.wanted.pop(output)

    def _take(self, operator: Any) -> None:
        kind, source, output = self._kind(operator), int(operator.inputs[0]), int(operator.outputs[0])
        maps = self._maps(operator, kind)
        if kind in _LAYERS and source in self.real and (weight := self._weight(operator, kind)):
            self._layer(operator, kind, weight)
        elif maps and output in self.wanted:
            target = self._rounded(output)
            for place, tensor in enumerate(maps):
                joined = kind == "CONCATENATION"
                operator.inputs[place] = self._like(self.real[tensor], target) if joined else self.real[tensor]
            self._put(operator, kind, target)
        elif kind in _HANDING_ON and source in self.real:
            steps = self.body.tensors[self.real[source]].quantization
            self.real[output] = made = self._new(self.body.tensors[output], steps)
            operator.inputs[0] = self.real[source]
            self._put(operator, kind, made)
        else:
            operator.inputs = np.array([self._as_numbers(int(tensor)) for tensor in operator.inputs], np.int32)
            self.operators.append(operator)
        self._round(output, self.real.get(output, output))

    def _maps(self, operator: Any, kind: str) -> list[int]:
        """The maps that an operator of integers takes; none where it is not one, or takes numbers."""
        maps = list(map(int, operator.inputs if kind == "CONCATENATION" else operator.inputs[: _MAPS.get(kind, 0)]))
        return maps if all(tensor in self.real for tensor in maps) else []

    def _round(self, tensor: int, source: int) -> None:
        """Round what an operator has made, as far as the operator itself has not."""
        for rounding in self.wanted.pop(tensor, ()):
            self.real[tensor] = made = self._new(self.body.tensors[tensor], self._of(rounding))
            self._add("QUANTIZE", source, made)
            source = made

    def _rounded(self, output: int) -> int:
        """The integers that an operator is to make: the first of those that are wanted."""
        self.real[output] = made = self._new(self.body.tensors[output], self._of(self.wanted[output].pop(0)))
        return made

    def _layer(self, operator: Any, kind: str, weight: Weight) -> None:
        axis, axes = _LAYERS[kind]
        source, output = self.real[int(operator.inputs[0])], int(operator.outputs[0])
        numbers = self.body.tensors[operator.inputs[1]]
        integers = self._constant(numbers, weight.integers.transpose(axes), "INT8", self._steps(weight.steps, axis))
        if output not in self.wanted:
            # Logits, which the training does not round: the weights alone are integers.
            operator.inputs[1] = self._new(numbers, None, "FLOAT32")
            self._add("DEQUANTIZE", integers, int(operator.inputs[1]), _VERSION_PER_CHANNEL)
            operator.inputs[0] = self._as_numbers(int(operator.inputs[0]))
            self.operators.append(operator)
            return
        bias = self.body.tensors[operator.inputs[2]] if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else None
        if bias is not None and (values := self._values(bias)) is not None:
            of_sums = weight.steps * np.float32(self.body.tensors[source].quantization.scale[0])
            sums = np.rint(values / of_sums.astype(np.float64)).astype(np.int32)
            operator.inputs[2] = self._constant(bias, sums, "INT32", self._steps(of_sums, 0))
        operator.inputs[0], operator.inputs[1] = source, integers
        self._put(operator, kind, self._rounded(output))

    def _weight(self, operator: Any, kind: str) -> Weight | None:
        """The training's weight whose numbers a layer has; None where it has others."""
        found = self._values(self.body.tensors[operator.inputs[1]])
        axis, axes = _LAYERS[kind]
        wide = [-1 if place == axis else 1 for place in range(len(axes))]
        for weight in self.weights:
            if found is not None and weight.integers.ndim == len(axes):
                numbers = weight.integers.transpose(axes) * weight.steps.reshape(wide)
                if numbers.shape == found.shape and np.allclose(found, numbers, rtol=1e-6, atol=0):
                    return weight
        return None

    # --- Tensors and tables

    def _kind(self, operator: Any) -> str:
        return self.kinds[tables.kind(self.model.operatorCodes[operator.opcodeIndex])]

    def _values(self, tensor: Any) -> NDArray[np.float32] | None:
        """What a constant of numbers holds; None where it is none."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != self.schema.TensorType.FLOAT32:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)

    def _of(self, rounding: Rounding) -> Any:
        return self._steps(np.array([rounding.step]), 0, rounding.zero)

    def _steps(self, steps: NDArray[np.float32], axis: int, zero: int = 0) -> Any:
        made = self.schema.QuantizationParametersT()
        made.scale, made.quantizedDimension = np.asarray(steps, np.float32), axis
        made.zeroPoint = np.full(len(steps), zero, np.int64)
        return made

    def _constant(self, like: Any, values: NDArray[Any], kind: str, steps: Any) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        made = self._new(like, steps, kind)
        self.body.tensors[made].buffer = len(self.model.buffers) - 1
        return made

    def _new(self, like: Any, steps: Any, kind: str = "INT8") -> int:
        """A tensor of another one's shape."""
        made = self.schema.TensorT()
        made.shape, made.shapeSignature, made.hasRank = like.shape, like.shapeSignature, like.hasRank
        made.name = like.name + (b"_numbers" if kind == "FLOAT32" else b"_integers")
        made.type, made.quantization = getattr(self.schema.TensorType, kind), steps
        self.body.tensors.append(made)
        return len(self.body.tensors) - 1

    def _like(self, source: int, target: int) -> int:
        """Integers of the steps of `target`, in which joined maps have to be."""
        mine, wanted = (self.body.tensors[tensor].quantization for tensor in (source, target))
        if (mine.scale[0], mine.zeroPoint[0]) == (wanted.scale[0], wanted.zeroPoint[0]):
            return source
        made = self._new(self.body.tensors[source], wanted)
        self._add("QUANTIZE", source, made)
        return made

    def _as_numbers(self, tensor: int) -> int:
        """The numbers of a tensor, which are made of its integers where it is rounded."""
        if tensor not in self.real:
            return tensor
        if tensor not in self.numbers:
            self.numbers[tensor] = made = self._new(self.body.tensors[tensor], None, "FLOAT32")
            self._add("DEQUANTIZE", self.real[tensor], made)
        return self.numbers[tensor]

    def _add(self, kind: str, source: int, target: int, version: int | None = None) -> None:
        made = self.schema.OperatorT()
        made.opcodeIndex = self._code(kind, version or _VERSIONS[kind])
        made.inputs, made.outputs = np.array([source], np.int32), np.array([target], np.int32)
        self.operators.append(made)

    def _put(self, operator: Any, kind: str, target: int) -> None:
        operator.outputs[0] = target
        operator.opcodeIndex = self._code(kind, _VERSIONS.get(kind, 1))
        self.operators.append(operator)

    def _code(self, kind: str, version: int) -> int:
        """The index of an operator, of a version that is no older."""
        number = self.codes[kind]
        for index, code in enumerate(self.model.operatorCodes):
            if tables.kind(code) == number:
                code.version = max(code.version, version)
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _forget_unused(self) -> None:
        """Empty the buffers that nothing reads."""
        used = {int(tensor) for operator in self.operators for tensor in operator.inputs if tensor >= 0}
        kept = {self.body.tensors[tensor].buffer for tensor in used}
        kept |= {entry.buffer for entry in self.model.metadata or ()}
        for index, buffer in enumerate(self.model.buffers):
            if index not in kept:
                buffer.data = None
