"""Edits of the ONNX files that MindSpore writes: what it writes wrong, and what it cannot write.

MindSpore's exporter (2.7 to 2.10) writes the padding of convolutions in its own order, and a fixed batch in opset 11.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from .integers import Integers, as_integers
from .onnx_sizes import constants_of, make_free, shapes_of

# The version of ONNX's operators: the highest whose operators the converter makes of opset 11 without more nodes.
OPSET = 17


def tidy(
    content: bytes,
    batch: int,
    dynamic: bool,
    entries: dict[str, str],
    free_size: bool = False,
    integers: Integers | None = None,
) -> bytes:
    """The file that MindSpore wrote for `batch` images, mended.

    Args:
        content: of the file.
        batch: what it was written for; with `dynamic` a number that no other size in the file has.
        dynamic: make a file for any number of images of it.
        entries: to put into the file's metadata.
        free_size: it was written for `onnx_sizes.TRACED`; make a file for images of any size of it.
        integers: what `integers.marked` has marked is computed in these.

    Input and output are named "image" and "logits".
    """
    model = onnx.load_model_from_string(content)
    graph = model.graph
    _rename(graph, graph.input[0].name, "image")
    _rename(graph, graph.output[0].name, "logits")
    for node in graph.node:
        if node.op_type == "Conv":
            order_padding(node)
        elif node.op_type == "ConvTranspose":
            _drop_shape(node)
    _resize_bilinearly(model)
    if free_size:
        make_free(model)
    if dynamic:
        _free_batch(graph, batch)
    if integers is not None:
        as_integers(model, integers)
    _drop_unused(graph)
    model = version_converter.convert_version(model, OPSET)
    helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _resize_bilinearly(model: onnx.ModelProto) -> None:
    """Have what `fold.MarkedUpsample` marked resized bilinearly, by the factors that its sizes amount to."""
    marked = [node for node in model.graph.node if node.op_type == "Resize" and _is_marked(node)]
    if not marked:
        return
    shapes = shapes_of(model)
    for node in marked:
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        name = f"{node.output[0]}_factors"
        factors = np.array([1, 1, *(new / old for old, new in zip(before[2:], after[2:], strict=True))], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(factors, name))
        names = [node.input[0], "", name]
        options = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        node.CopyFrom(helper.make_node("Resize", names, list(node.output), node.name, **options))


def _is_marked(node: onnx.NodeProto) -> bool:
    return any(attribute.s == b"align_corners" for attribute in node.attribute)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def order_padding(node: onnx.NodeProto) -> None:
    """(top, bottom, left, right), as MindSpore writes it -> (top, left, bottom, right), as ONNX has it.

    All networks here pad both sides alike, so that what is in order already is known.
    """
    for attribute in node.attribute:
        if attribute.name == "pads" and attribute.ints[0] == attribute.ints[1]:
            top, bottom, left, right = attribute.ints
            attribute.ints[:] = [top, left, bottom, right]


def _drop_shape(node: onnx.NodeProto) -> None:
    """Have a transposed convolution work its size out: MindSpore writes it with batch and channels, ONNX without."""
    kept = [attribute for attribute in node.attribute if attribute.name != "output_shape"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _free_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Take the number of images out of the shapes, and of the constants that depend on it."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    values = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Reshape":
            _free_shape(values[node.input[1]], batch)
        elif node.op_type == "Concat" and len(node.input) == 2 and node.input[1] in values:
            _pad_instead(graph, node, values[node.input[1]], batch)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take out constants that nothing reads any more."""
    used = {name for node in graph.node for name in node.input}
    entries = [entry for entry in graph.initializer if entry.name in used]
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(entries)
    graph.node.extend(nodes)


def _free_shape(shape: onnx.TensorProto, batch: int) -> None:
    """Have a reshape work the number of images out."""
    sizes = numpy_helper.to_array(shape).copy()
    if sizes[0] == batch:
        sizes[0] = -1
        shape.CopyFrom(numpy_helper.from_array(sizes, shape.name))


def _pad_instead(graph: onnx.GraphProto, node: onnx.NodeProto, constant: onnx.TensorProto, batch: int) -> None:
    """Have channels of zeros added by padding, not by joining a constant of `batch` images of them."""
    zeros = numpy_helper.to_array(constant)
    if zeros.shape[0] != batch or zeros.any():
        return
    name = f"{node.output[0]}_padding"
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, zeros.shape[1], 0, 0]), name))
    node.CopyFrom(helper.make_node("Pad", [node.input[0], name], list(node.output), mode="constant"))
