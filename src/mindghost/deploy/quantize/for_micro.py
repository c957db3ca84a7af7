"""LiteRT's files for microcontrollers: integers from the image to the logits, run by tflite-micro."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...inference import formats
from ...inference.deployment import Deployment
from ...inference.formats.litert_file import LITERT
from ..micro.examination import Findings, check_flash, check_libraries, examine
from ..micro.graph import contents, inlined
from ..micro.target import Target
from .by_litert import LiteRTQuantizer
from .quantizer import Layer, Parts


class MicroQuantizer(LiteRTQuantizer):
    """AI Edge Quantizer, for files whose input and output are int8, too, and which a microcontroller has room for."""

    def __init__(self, deployed: Deployment, target: Target) -> None:
        """Raises UserError where a file of this kind is not for microcontrollers, or a library is missing."""
        if formats.of(deployed.path) is not LITERT:
            raise UserError(
                f"{deployed.path}: --target mcu takes a .tflite file; make one with `mindghost export --format litert`"
            )
        if deployed.batch != 1:
            raise UserError(
                f"{deployed.path}: takes {deployed.batch} images at once, and --target mcu one; export it again without"
                " --batch_size"
            )
        super().__init__(deployed)
        check_libraries()
        self._deployed, self._target = deployed, target
        self._images: NDArray[Any] = np.empty(0)
        self.findings: Findings | None = None

    def calibrate(self, inputs: NDArray[Any]) -> None:
        """See `Quantizer`."""
        super().calibrate(inputs)
        self._images = inputs

    def int8(self, mode: str, layers: Sequence[Layer]) -> Parts:
        """See `Quantizer`. Raises UserError where the file is none for the target (see `examine`)."""
        graph = inlined(self._static(float_ends=False))
        self.findings = examine(self._deployed.path, graph, self._images, self._target)
        return (graph,)

    def said(self, parts: Parts) -> Mapping[str, Any]:
        """See `Quantizer`: what a program on the device has to know of the file."""
        assert self.findings is not None  # int8 has made the parts
        found = replace(self._deployed, steps=contents(parts[0]).steps).describe()
        memory = {"arena": self.findings.arena.total, "operators": list(self.findings.operators)}
        return {"input": found["input"], "output": found["output"], "microcontroller": memory}

    def described(self, parts: Parts, description: str) -> Parts:
        """See `Quantizer`. Raises UserError where the file with its description is too large."""
        made = super().described(parts, description)
        check_flash(self._deployed.path, len(made[0]), contents(parts[0]), self._target)
        return made
