"""ONNX files, by ONNX Runtime's static quantiser: which layers become int8, and what that does to the logits."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import UserError
from ...evaluate.batch import fitting
from ...files import scratch
from ...inference.batches import in_batches
from ...inference.deployment import Deployment
from ...inference.formats import ENTRY
from ...inference.formats.onnx_file import ONNX, content_of
from ...process import resources
from .quantizer import Layer, Parts, Quantizer, already_smaller, as_file, batches

log = logging.getLogger("mindghost")

_BATCH = 16  # images that are calibrated on at once, of those that are not large
_COST_SECONDS = 600  # after which layers stay unmeasured, and in int8


class OnnxQuantizer(Quantizer):
    """ONNX Runtime's static quantiser for a file; the ranges of the activations are measured once.

    Weights use 7 of the 8 bits: the 8-bit products of x86 processors without VNNI are added up in 16 bits, which full
    weights overflow. So the answers are the same on all processors.

    Attributes:
        layers: in the order of the file.
    """

    form = ONNX
    modes = ("per-tensor", "per-channel")

    def __init__(self, deployed: Deployment) -> None:
        """Raises UserError where the file is not in float, or a library is missing."""
        try:
            import onnx
            from onnxruntime import quantization
            from onnxruntime.quantization import registry
        except ImportError as error:
            raise UserError(f"quantisation needs two libraries ({error}); pip install onnx onnxruntime") from error
        if content_of(deployed.path) != deployed.path.read_bytes():
            raise UserError(f"{deployed.path}: keeps weights in a second file; export it again as one file")
        self._model = onnx.shape_inference.infer_shapes(onnx.load(deployed.path))
        graph = self._model.graph
        if any(node.op_type == "QuantizeLinear" for node in graph.node) or any(
            entry.data_type == onnx.TensorProto.FLOAT16 for entry in graph.initializer
        ):
            raise already_smaller(deployed.path)
        _, height, width = deployed.input_shape
        most = fitting(height * width, resources.free_memory())
        self._path, self._batch = deployed.path, deployed.batch or min(_BATCH, most)
        self._operators = sorted({*registry.QDQRegistry, *registry.QLinearOpsRegistry})
        self._types = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
        self._ranges: Any = None
        self.layers = _layers(graph)

    def calibrate(self, inputs: NDArray[Any]) -> None:
        """Measure the smallest and largest value of each activation on images (N, C, H, W)."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        with scratch.folder_for_libraries("quantize") as temporary:
            # A copy: files are written beside what is given, and a name that is no UTF-8 is refused.
            model = Path(shutil.copyfile(self._path, temporary / "model.onnx"))
            augmented = str(temporary / "augmented.onnx")
            calibrator = create_calibrator(model, self._operators, augmented, calibrate_method=CalibrationMethod.MinMax)
            calibrator.collect_data(_Reader(inputs, self._batch))
            self._ranges = calibrator.compute_data()

    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """See `Quantizer`."""
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        nodes = [name for layer in layers for name in layer.nodes]
        with scratch.folder_for_libraries("quantize"):
            quantizer = QDQQuantizer(
                # It changes the model that it gets.
                copy.deepcopy(self._model),
                mode == "per-channel",
                True,
                *self._types,
                self._ranges,
                nodes,
                [],
                self._operators,
                {},
            )
            quantizer.quantize_model()
            return (quantizer.model.model.SerializeToString(),)

    def float16(self) -> Parts:
        """See `Quantizer`."""
        import onnx
        from onnxruntime.transformers import float16

        half = float16.convert_float_to_float16(onnx.load(self._path), keep_io_types=True)
        return (half.SerializeToString(),)

    def described(self, parts: Parts, description: str) -> Parts:
        """See `Quantizer`."""
        import onnx

        model = onnx.load_model_from_string(parts[0])
        onnx.helper.set_model_props(model, {ENTRY: description})
        return (model.SerializeToString(),)

    def costs(self, mode: str, inputs: NDArray[Any]) -> list[Layer]:
        """The layers with their costs on images (N, C, H, W), the dearest first; those unmeasured last."""
        expected = self._logits((self._path.read_bytes(),), inputs)
        scale = float(np.sqrt(np.mean(expected**2))) or 1.0
        end, found = time.monotonic() + _COST_SECONDS, []
        for layer in tqdm(self.layers, "cost of layers", unit="layer", leave=False, disable=None):
            cost = None
            if time.monotonic() < end:
                change = self._logits(self.int8(mode, [layer]), inputs) - expected
                cost = float(np.sqrt(np.mean(change**2))) / scale
            found.append(replace(layer, cost=cost))
        unmeasured = sum(layer.cost is None for layer in found)
        if unmeasured:
            log.warning(f"{unmeasured} layers were not measured within {_COST_SECONDS} s")
        return sorted(found, key=lambda layer: -1.0 if layer.cost is None else layer.cost, reverse=True)

    def _logits(self, parts: Parts, inputs: NDArray[Any]) -> NDArray[Any]:
        with as_file(ONNX, parts) as path:
            run = ONNX.network(path)
        # In batches, for the sake of memory.
        return in_batches(run, self._batch)(inputs)


def _layers(graph: Any) -> list[Layer]:
    """What is left in float together: an operator with weights and those that follow it."""
    weights = {entry.name for entry in graph.initializer}
    names: list[str] = []
    nodes: list[list[str]] = []
    for node in graph.node:
        if not names or (node.op_type in ("Conv", "Gemm", "MatMul") and weights.intersection(node.input)):
            own = next((name for name in node.input if name in weights), node.name)
            names.append(own.removesuffix(".weight"))
            nodes.append([])
        nodes[-1].append(node.name)
    return [Layer(name, tuple(members)) for name, members in zip(names, nodes, strict=True)]


class _Reader:
    """Calibration images as ONNX Runtime asks for them, in batches of one size."""

    def __init__(self, inputs: NDArray[Any], batch: int) -> None:
        self._batches = iter([{"image": images} for images in batches(inputs, batch)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return self._batches
