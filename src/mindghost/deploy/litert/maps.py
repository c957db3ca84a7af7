"""Which maps of a LiteRT file are those that a training rounds: found by their values for an image.

Converters join, rename and transpose; the values stay.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ...errors import UserError
from . import tables
from .plain import Plain, Rounding

# How far a map of LiteRT may be off ONNX Runtime's, as a share of its largest value.
_SAME = 1e-4


def found(graph: bytes, source: Plain) -> dict[int, list[Rounding]]:
    """Tensor of a LiteRT file -> how it is rounded, once after the other."""
    names = list(dict.fromkeys(rounding.map for rounding in source.roundings))
    wanted = dict(zip(names, _of_onnx(source.model, names), strict=True))
    tensors = _of_litert(graph, next(iter(_images(source.model).values())))
    rounded: dict[int, list[Rounding]] = {}
    places: dict[str, int] = {}
    for rounding in source.roundings:
        values = wanted[rounding.map]
        if rounding.map not in places:
            alike = [index for index, tensor in tensors.items() if _is_same(tensor, values)]
            if not alike:
                raise UserError(
                    f"--format litert: the converter left no map {rounding.map[:80]!r}, which the training rounds; use "
                    "another --format, and report the network"
                )
            # A map of the same number of axes that is no other's already: reshaped, it may be rounded once more.
            places[rounding.map] = min(
                alike, key=lambda index: (index in rounded, tensors[index].ndim != values.ndim, alike.index(index))
            )
        steps = rounded.setdefault(places[rounding.map], [])
        if not steps or (steps[-1].step, steps[-1].zero) != (rounding.step, rounding.zero):
            steps.append(rounding)
    return rounded


def _images(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Noise for the input of a file."""
    taken = model.graph.input[0]
    shape = [size.dim_value for size in taken.type.tensor_type.shape.dim]
    return {taken.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def _of_onnx(model: onnx.ModelProto, names: Sequence[str]) -> list[NDArray[np.float32]]:
    """Maps of an ONNX file."""
    import onnxruntime

    images = _images(model)
    shown = copy.deepcopy(model)
    outputs = {end.name for end in (*shown.graph.output, *shown.graph.input)}
    float32 = onnx.TensorProto.FLOAT
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, float32, None) for name in names if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [images[name] if name in images else session.run([name], images)[0] for name in names]


def _of_litert(graph: bytes, images: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
    """Maps of a LiteRT file, in the order in which they are computed."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=graph,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (taken,) = (end["index"] for end in interpreter.get_input_details())
    interpreter.set_tensor(taken, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    body = tables.read(graph).subgraphs[0]
    computed = [taken, *(int(tensor) for operator in body.operators for tensor in operator.outputs)]
    values = {index: interpreter.get_tensor(index) for index in computed}
    return {index: array for index, array in values.items() if array.dtype == np.float32}


def _is_same(tensor: NDArray[np.float32], values: NDArray[np.float32]) -> bool:
    """Whether a LiteRT map is an ONNX one, as it is or with its channels last."""
    if tensor.size != values.size:
        return False
    orders = [values, values.transpose(0, 2, 3, 1)] if values.ndim == 4 else [values]
    close = _SAME * float(np.abs(values).max())
    return any(np.abs(tensor.ravel() - order.ravel()).max() <= close for order in orders)
