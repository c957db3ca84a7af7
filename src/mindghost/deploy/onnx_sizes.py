"""Sizes in ONNX graphs: what they are, and how a graph for images of one size becomes one for any height and width.

MindSpore's exporter (2.7 to 2.10) writes graphs of fixed sizes only. In networks that give each pixel a class, a size
is that of the image divided by a stride, rounded up: constants become such computed sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import UserError

# Height and width that a graph is written for before it is freed. They are odd on every level, so that the graph has
# all the cuts that only some sizes need; and no two strides have one size.
TRACED = (65, 97)
_STRIDES = (1, 2, 4, 8, 16, 32)
_NAMES = {2: "height", 3: "width"}


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shape of each value of a graph whose sizes are fixed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constants of a graph by name."""
    found = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    return found | {entry.name: entry for entry in graph.initializer}


def make_free(model: onnx.ModelProto) -> None:
    """Have a graph that was written for TRACED take images of any height and width. Changes the model.

    Raises UserError for a size that is none of the image's.
    """
    graph, shapes = model.graph, shapes_of(model)
    computed = _Computed(graph)
    _resize_in_one(graph, shapes, computed)
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Slice":
            axes, ends = (numpy_helper.to_array(constants[node.input[place]]) for place in (3, 2))
            if axes.tolist() in ([2], [3]):
                node.input[2] = computed.size(int(axes[0]), int(ends[0]))
    computed.put_first()
    for value in (graph.input[0], graph.output[0]):
        for axis, name in _NAMES.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del graph.value_info[:]


class _Computed:
    """Nodes that compute sizes from the size of the image."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes = [helper.make_node("Shape", [graph.input[0].name], ["image_shape"])]
        self._names: dict[tuple[int, int], str] = {}

    def size(self, axis: int, traced: int) -> str:
        """The name of a value, int64 (1,): the size that was `traced` along an axis."""
        strides = [stride for stride in _STRIDES if -(-TRACED[axis - 2] // stride) == traced]
        if not strides:
            raise UserError(
                f"--free_size: maps have a {_NAMES[axis]} of {traced} where images have {TRACED[axis - 2]}, which does "
                "not follow from it; leave --free_size out"
            )
        (stride,) = strides
        if (axis, stride) not in self._names:
            self._names[axis, stride] = self._divided(axis, stride)
        return self._names[axis, stride]

    def _divided(self, axis: int, stride: int) -> str:
        name = f"{_NAMES[axis]}_{stride}"
        self._add("Gather", ["image_shape", self.constant(f"{name}_axis", [axis])], f"{name}_whole")
        self._add("Add", [f"{name}_whole", self.constant(f"{name}_surplus", [stride - 1])], f"{name}_raised")
        self._add("Div", [f"{name}_raised", self.constant(f"{name}_stride", [stride])], name)
        return name

    def constant(self, name: str, values: Sequence[int]) -> str:
        """Add a constant of whole numbers; returns its name."""
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _add(self, operator: str, inputs: Sequence[str], output: str) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [output]))

    def put_first(self) -> None:
        """Put the nodes into the graph, before all that read them."""
        nodes = [*self._nodes, *self._graph.node]
        del self._graph.node[:]
        self._graph.node.extend(nodes)


def _resize_in_one(graph: onnx.GraphProto, shapes: dict[str, list[int]], computed: _Computed) -> None:
    """Have products with 0/1 matrices, by which GhostNetV2's attention takes nearest pixels, be operators for that."""
    nodes = list(graph.node)
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(index)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for index, node in enumerate(nodes):
        chain = _products(nodes, index, readers, shapes)
        if chain:
            replaced |= {place: [] for place in chain}
            replaced[chain[-1]] = _nearest(node.input[0], nodes[chain[-1]].output[0], shapes, computed)
    new = [node for index, old in enumerate(nodes) for node in replaced.get(index, [old])]
    del graph.node[:]
    graph.node.extend(new)


def _products(
    nodes: Sequence[onnx.NodeProto], start: int, readers: dict[str, list[int]], shapes: dict[str, list[int]]
) -> list[int]:
    """The indices of a reshape of maps to rows, the products that follow, and the reshape to maps; none otherwise."""
    first = nodes[start]
    if first.op_type != "Reshape" or (len(shapes[first.input[0]]), len(shapes[first.output[0]])) != (4, 2):
        return []
    chain = [start]
    while len(shapes[nodes[chain[-1]].output[0]]) != 4:
        following = readers.get(nodes[chain[-1]].output[0], [])
        if len(following) != 1 or nodes[following[0]].op_type not in ("MatMul", "Reshape"):
            return []
        chain += following
    return chain


def _nearest(source: str, output: str, shapes: dict[str, list[int]], computed: _Computed) -> list[onnx.NodeProto]:
    """Nodes that take the pixel floor(index * h / height) of maps of height h, and so along the width."""
    _, _, height, width = shapes[output]
    names = [f"{output}_{part}" for part in ("shape", "batch_and_channels", "size", "places")]
    shape, start, size, places = names
    computed.constant(places, [0, 1])
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [
        helper.make_node("Shape", [source], [shape]),
        helper.make_node("Gather", [shape, places], [start]),
        helper.make_node("Concat", [start, computed.size(2, height), computed.size(3, width)], [size], axis=0),
        helper.make_node("Resize", [source, "", "", size], [output], **options),
    ]
