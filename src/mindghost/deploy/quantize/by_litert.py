"""LiteRT's files, by AI Edge Quantizer, which LiteRT's makers keep for that."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import scratch
from ...inference.deployment import Deployment
from ...inference.formats.litert_file import LITERT, described, graph_of
from ...process import streams
from .quantizer import Layer, Parts, Quantizer, batches


class LiteRTQuantizer(Quantizer):
    """AI Edge Quantizer: weights per channel, activations per tensor with a zero point; input and output stay float."""

    form = LITERT
    modes = ("per-channel",)

    def __init__(self, deployed: Deployment) -> None:
        """Raises UserError where the file is damaged, or a library is missing."""
        try:
            import ai_edge_quantizer  # noqa: F401
        except ImportError as error:
            message = f"ai-edge-quantizer makes int8 of it ({error}); pip install ai-edge-quantizer"
            raise UserError(f"{deployed.path}: {message}") from error
        self._graph, self._batch = graph_of(deployed.path), deployed.batch or 1
        self._inputs: Sequence[NDArray[Any]] = ()

    def calibrate(self, inputs: NDArray[Any]) -> None:
        """See `Quantizer`."""
        self._inputs = batches(np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)), self._batch)

    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """See `Quantizer`."""
        return (self._static(float_ends=True),)

    def _static(self, float_ends: bool) -> bytes:
        """The graph in int8; its input and output, too, but with `float_ends`."""
        from ai_edge_quantizer import qtyping, recipe

        with self._opened() as made:
            made.load_quantization_recipe(recipe.static_wi8_ai8())
            for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT) if float_ends else ():
                made.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
            ranges = made.calibrate({None: [{"image": images} for images in self._inputs]})
            return bytes(made.quantize(ranges).quantized_model)

    def float16(self) -> Parts:
        """See `Quantizer`."""
        from ai_edge_quantizer import qtyping

        with self._opened() as made:
            weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
            made.update_quantization_recipe(
                ".*",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                qtyping.OpQuantizationConfig(
                    weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT
                ),
                "float_casting",
            )
            return (bytes(made.quantize().quantized_model),)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """AI Edge Quantizer's own object for the file; what its libraries say goes nowhere."""
        from ai_edge_quantizer import quantizer

        # Its summary would stand among the answers of the command.
        silent = contextlib.redirect_stdout(io.StringIO())
        with streams.libraries_silenced(), silent, scratch.folder_for_libraries("quantize") as folder:
            path = folder / "model.tflite"
            path.write_bytes(self._graph)
            yield quantizer.Quantizer(str(path))

    def described(self, parts: Parts, description: str) -> Parts:
        """See `Quantizer`."""
        return (described(parts[0], description),)
