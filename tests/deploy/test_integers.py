"""Networks that were trained for integers: their files have these integers, and no layer in float."""

import json

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import Tensor
from onnx import numpy_helper

from mindghost import build
from mindghost.config import Config
from mindghost.deploy import export
from mindghost.deploy.litert import maps, tables
from mindghost.deploy.litert.integers import as_integers
from mindghost.deploy.litert.plain import plain
from mindghost.deploy.prune import files as prune_files
from mindghost.deploy.quantize import quantize
from mindghost.errors import UserError
from mindghost.inference import artifact
from mindghost.inference.formats import litert_file
from mindghost.inference.network import of_exported
from mindghost.runtime import Runtime
from tests.helpers import short
from tests.helpers.edge import need
from tests.helpers.integers import write_integer_run

NETWORKS = (
    {"model": "ghostnet_050", "in_channels": 1},
    {"model": "ghostnetv2_100", "image_resize": (32, 48)},
    {"model": "repghostnet_050"},
)
# Of LiteRT's format: convolutions (dense, depthwise) and dense layers, and the type of integers.
LAYERS, INT8 = (3, 4, 9), 9


def images_of(deployed, count: int = 5) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, *deployed.input_shape)).astype(np.float32)


def simulated(path, images: np.ndarray) -> np.ndarray:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network, _ = build.trained_network(artifact.of_file(path).config)
    return network.set_train(False)(Tensor(images)).asnumpy()


def session(path, optimised: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture
def strides(monkeypatch) -> None:
    from mindghost.models import ghostnet

    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())


@pytest.mark.parametrize("keys", NETWORKS, ids=lambda keys: keys["model"])
def test_onnx_files_have_the_integers_of_the_simulation(short_network, tmp_path, keys, monkeypatch):
    path = write_integer_run(tmp_path, **keys)
    (written,) = export.export(artifact.of_file(path), ["onnx"])
    images = images_of(artifact.of_file(written.path))
    expected = simulated(path, images)
    scale = np.abs(expected).max()
    exact = session(written.path, optimised=False).run(None, {"image": images})[0]
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-4 * scale)
    fast = session(written.path, optimised=True).run(None, {"image": images})[0]
    np.testing.assert_allclose(fast, expected, rtol=0, atol=export.INTEGER_TOLERANCE * scale)
    check_weights(written.path, path)
    check_plain(onnx.load(written.path), monkeypatch)
    assert json.loads(path.with_suffix(".json").read_text())["quantization"] == {"kind": "int8, trained"}
    assert artifact.of_file(written.path).config.quantize_aware == "int8"


def check_weights(exported, checkpoint) -> None:
    """Every layer reads integers alone: those that the checkpoint's weights round to, bit for bit."""
    graph = onnx.load(exported).graph
    values = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    arrays = {name: array for name, array in _arrays(checkpoint).items() if name.endswith(".weight")}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == len(arrays)
    for node in layers:
        sources = [maker[name] for name in node.input]
        assert [source.op_type for source in sources] == ["DequantizeLinear"] * 3
        integers, steps = (values[name] for name in sources[1].input[:2])
        weight = arrays[sources[1].input[0].removesuffix(".integers")]
        wanted = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(63)
        np.testing.assert_array_equal(steps, wanted)
        wide = steps.reshape(-1, *[1] * (weight.ndim - 1))
        assert integers.dtype == np.int8
        np.testing.assert_array_equal(integers, np.rint(weight / wide).astype(np.int8))
        assert values[sources[2].input[0]].dtype == np.int32
        assert values[sources[0].input[2]].dtype == np.uint8


def check_plain(model: onnx.ModelProto, monkeypatch) -> None:
    """What LiteRT's file is made of has the same numbers, but for the rounding of maps, and none that is lost."""
    kinds = [node.op_type for node in model.graph.node]
    numbers = plain(model)
    onnx.checker.check_model(numbers.model)
    left = {node.op_type for node in numbers.model.graph.node}
    assert not left & {"QuantizeLinear", "DequantizeLinear"}
    assert len(numbers.roundings) == kinds.count("QuantizeLinear")
    assert len(numbers.weights) == kinds.count("Conv") + kinds.count("Gemm")
    assert all(-128 <= rounding.zero <= 127 and rounding.step > 0 for rounding in numbers.roundings)
    monkeypatch.setattr(maps, "_of_onnx", lambda model, names: [np.ones((1, 2)) for _ in names])
    monkeypatch.setattr(maps, "_images", lambda model: {"image": np.ones((1, 2))})
    monkeypatch.setattr(maps, "_of_litert", lambda graph, images: {7: np.ones((2, 2)), 8: np.zeros((1, 2))})
    with pytest.raises(UserError, match="--format litert: the converter left no map 'image', which the training"):
        as_integers(b"", numbers)


def _arrays(path) -> dict[str, np.ndarray]:
    from mindghost.checkpoint import weights

    return weights.read(path)


def test_segmentation_for_any_size(strides, tmp_path):
    path = write_integer_run(
        tmp_path, model="ghost_unet", task="segmentation", backbone="ghostnet_050", image_resize=64
    )
    (written,) = export.export(artifact.of_file(path), ["onnx"], free_size=True)
    images = np.random.default_rng(8).standard_normal((2, 3, 45, 70)).astype(np.float32)
    expected = simulated(path, images)
    found = session(written.path, optimised=False).run(None, {"image": images})[0]
    # Resized maps differ in their last bits, by which some are rounded to the next step.
    np.testing.assert_allclose(found, expected, rtol=0, atol=export.INTEGER_TOLERANCE * np.abs(expected).max())
    check_weights(written.path, path)


def test_mindir_files_give_the_same(short_network, tmp_path):
    path = write_integer_run(tmp_path, model="ghostnet_050")
    (written,) = export.export(artifact.of_file(path), ["mindir"])
    assert written.difference < export.TOLERANCE


@pytest.mark.parametrize("keys", NETWORKS, ids=lambda keys: keys["model"])
def test_litert_files_have_the_integers_of_the_simulation(short_network, tmp_path, keys):
    need("litert")
    path = write_integer_run(tmp_path, **keys)
    (written,) = export.export(artifact.of_file(path), ["litert"])
    deployed = artifact.of_file(written.path)
    images = images_of(deployed)
    expected = simulated(path, images)
    found = of_exported(deployed)(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=export.INTEGER_TOLERANCE * np.abs(expected).max())
    assert deployed.config.quantize_aware == "int8"
    check_litert(litert_file.graph_of(written.path), path)


def check_litert(graph: bytes, checkpoint) -> None:
    """Each layer has the weights of the checkpoint as integers; none but the last gives numbers."""
    model = tables.read(graph)
    tensors = model.subgraphs[0].tensors
    layers = [
        operator
        for operator in model.subgraphs[0].operators
        if tables.kind(model.operatorCodes[operator.opcodeIndex]) in LAYERS
    ]
    maker = {int(operator.outputs[0]): operator for operator in model.subgraphs[0].operators}
    arrays = [array for name, array in _arrays(checkpoint).items() if name.endswith(".weight")]
    wanted = [(np.rint(weight / (steps := _steps(weight))).astype(np.int8), steps) for weight in arrays]
    assert len(layers) == len(wanted)
    for number, layer in enumerate(layers, 1):
        source, weight, output = (tensors[int(place)] for place in (*layer.inputs[:2], layer.outputs[0]))
        if number == len(layers):
            weight = tensors[int(maker[int(layer.inputs[1])].inputs[0])]
        else:
            assert source.type == output.type == INT8
        axis = weight.quantization.quantizedDimension
        integers = np.asarray(model.buffers[weight.buffer].data, np.uint8).view(np.int8).reshape(weight.shape)
        integers = np.moveaxis(integers, axis, 0).reshape(len(weight.quantization.scale), -1)
        # Any of them, and each once.
        same = [
            index
            for index, (values, steps) in enumerate(wanted)
            if len(values) == len(integers)
            and np.array_equal(steps.ravel(), weight.quantization.scale)
            and np.array_equal(np.moveaxis(values, 1, -1).reshape(integers.shape), integers)
        ]
        assert same
        del wanted[same[0]]


def _steps(weight: np.ndarray) -> np.ndarray:
    return np.abs(weight).max(tuple(range(1, weight.ndim)), keepdims=True) / np.float32(63)


def test_formats_that_hold_no_such_network_say_so(short_network, tmp_path, monkeypatch):
    path = write_integer_run(tmp_path, model="ghostnet_050")
    monkeypatch.setattr(export.WRITERS["ncnn"], "check", lambda: None, raising=False)
    with pytest.raises(
        UserError, match="--format ncnn: .* is trained for integers, .* give one of mindir, onnx, openvino, litert"
    ) as caught:
        export.export(artifact.of_file(path), ["ncnn"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.param"))


def test_neither_quantised_again_nor_pruned(short_network, tmp_path, images):
    path = write_integer_run(tmp_path, model="ghostnet_050")
    (written,) = export.export(artifact.of_file(path), ["onnx"])
    deployed = artifact.of_file(written.path)
    runtime = Runtime.start(Config(**{"data_dir": str(images), "num_classes": 3, "device_target": "CPU"}))
    with pytest.raises(UserError, match="int8"):
        quantize(deployed, runtime, images)
    with pytest.raises(UserError, match="is trained for integers; prune a network in float"):
        prune_files.write(artifact.of_file(path), 0.7, "magnitude", tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
