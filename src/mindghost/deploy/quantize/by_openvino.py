"""OpenVINO's files, by NNCF, which OpenVINO's makers keep for that."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ...errors import UserError
from ...inference.deployment import Deployment
from ...inference.formats.openvino_file import OPENVINO, contents_of, described, model_of, more_instructions
from .quantizer import Layer, Parts, Quantizer, already_smaller, batches


class OpenVinoQuantizer(Quantizer):
    """NNCF's quantiser: weights per channel; activations symmetric ("performance"), or with a zero point ("mixed")."""

    form = OPENVINO
    modes = ("performance", "mixed")

    def __init__(self, deployed: Deployment) -> None:
        """Raises UserError where the file is not in float, or a library is missing."""
        try:
            import nncf
        except ImportError as error:
            raise UserError(f"{deployed.path}: nncf makes int8 of it ({error}); pip install nncf") from error
        nncf.set_log_level(40)
        self._path, self._batch = deployed.path, deployed.batch or 1
        self._inputs: Sequence[NDArray[Any]] = ()
        kinds = {op.get_type_name() for op in model_of(deployed.path).get_ops()}
        if "FakeQuantize" in kinds or "Convert" in kinds:
            raise already_smaller(deployed.path)

    def calibrate(self, inputs: NDArray[Any]) -> None:
        """See `Quantizer`."""
        self._inputs = batches(inputs, self._batch)

    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """See `Quantizer`."""
        import nncf

        preset = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}[mode]
        # It draws bars on standard output.
        with contextlib.redirect_stdout(io.StringIO()), more_instructions():
            dataset = nncf.Dataset(self._inputs)
            made = nncf.quantize(model_of(self._path), dataset, preset=preset, subset_size=len(self._inputs))
            return contents_of(made)

    def float16(self) -> Parts:
        """See `Quantizer`."""
        return contents_of(model_of(self._path), half=True)

    def described(self, parts: Parts, description: str) -> Parts:
        """See `Quantizer`."""
        return described(parts, description)
