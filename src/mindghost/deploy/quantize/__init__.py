"""An exported file -> an int8 and a float16 one that were evaluated against it before they are kept.

Int8 is static: ranges of the activations are measured on images, and weights and activations are integers (QDQ form).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import tasks
from ...errors import UserError
from ...files import intact, json_text, paths
from ...inference import artifact, formats
from ...inference.deployment import Deployment
from ...inference.formats import Format
from ...runtime import Runtime
from .. import own_files
from ..micro.examination import Findings
from ..micro.target import Target
from .by_litert import LiteRTQuantizer
from .by_ncnn import NcnnQuantizer
from .by_onnxruntime import OnnxQuantizer
from .by_openvino import OpenVinoQuantizer
from .calibration import calibration_images
from .for_micro import MicroQuantizer
from .quantizer import Quantizer, already_smaller
from .search import Goal, int8, reaches
from .trial import Trial, Variant, latency

# Images on which the cost of a layer is measured: at most, and as many as have so many logits.
_COST_IMAGES, _COST_LOGITS = 64, 2**26


# Format -> what makes an int8 file of one.
QUANTIZERS: dict[Format, Callable[[Deployment], Quantizer]] = {
    each.form: each for each in (OnnxQuantizer, OpenVinoQuantizer, LiteRTQuantizer, NcnnQuantizer)
}


@dataclass(frozen=True)
class Result:
    """What was tried and written.

    Attributes:
        source: the float file.
        tried: the float file's variant first, in the order of their evaluation.
        written: variants by path of their file.
        latencies: milliseconds, median of single calls in one thread, of `source` and the files written.
        layers: of the network.
        calibrated, evaluated: images.
        batch: images of a timed call.
        findings: of a file for microcontrollers.
    """

    source: Path
    tried: tuple[Variant, ...]
    written: dict[Path, Variant]
    latencies: dict[Path, float]
    layers: int
    calibrated: int
    evaluated: int
    batch: int
    findings: Findings | None = None

    def record(self) -> dict[str, Any]:
        """All of it but the files' contents, for JSON."""
        files = {self.source: self.tried[0], **self.written}
        return {
            "source": str(self.source),
            "images": {"calibrated": self.calibrated, "evaluated": self.evaluated},
            "layers": self.layers,
            "latency": {"batch": self.batch, "threads": 1},
            "tried": [_figures(variant) for variant in self.tried],
            "files": [
                {"path": str(path), **_figures(variant), "latency_ms": self.latencies.get(path)}
                for path, variant in files.items()
            ],
            **({} if self.findings is None else {"microcontroller": self.findings.record()}),
        }


def _figures(variant: Variant) -> dict[str, Any]:
    layers = [{"name": layer.name, "cost": layer.cost} for layer in variant.float_layers]
    numbers = {key: value for key, value in variant.metrics.result().items() if key != "num_samples"}
    return {"kind": variant.kind, **numbers, "size": variant.size, "float_layers": layers}


def quantize(
    deployed: Deployment,
    runtime: Runtime,
    calib_dir: Path,
    calib_images: int = 256,
    goal: Goal | None = None,
    float16: bool = False,
    folder: Path | None = None,
    overwrite: bool = False,
    timed: bool = True,
    target: Target | None = None,
) -> Result:
    """Write `<stem>_int8`, with `float16` `<stem>_float16`, in the file's format, and a description beside each.

    With `target`, `<stem>_mcu` takes their place: a file of integers alone, which is run by tflite-micro and not timed.

    All modes of the quantiser are evaluated with all layers in int8. Where the best one loses too much, the layers that
    cost most are left in float (of ONNX files): as few as will do.

    Args:
        deployed: the exported file, in float.
        runtime: its configuration says where the validation images are; its network is that of `deployed`.
        calib_dir: image folder, of any depth, or a pack; for a data set in binary form also its own folder.
        calib_images: how many of them are used, chosen by a fixed seed.
        goal: default, half a point of top-1.
        folder: where the files go; None is that of `deployed`.
        overwrite: replace files that are there, also those that were not made here.
        timed: measure latencies; there are none otherwise.
        target: the microcontroller that the file is for.

    Raises:
        UserError: a file or folder that is not fit, a library that is missing, or a goal that is not reached: nothing
            is written then.
        RunError: a file cannot be written.
    """
    goal = goal or Goal()
    form = formats.of(deployed.path)
    folder = folder or deployed.path.parent
    kinds = ["mcu"] if target else ["int8", "float16"] if float16 else ["int8"]
    stem = deployed.path.stem.removesuffix(form.infix)
    files = {kind: folder / f"{stem}_{kind}{form.infix}{form.suffix}" for kind in kinds}
    names = [name for file in files.values() for name in (*form.parts(file), form.description_beside(file))]
    own_files.check_replaceable(names, overwrite, deployed.path)
    network = _quantizer(deployed, target)
    calibration = calibration_images(runtime.config, calib_dir, calib_images, deployed.known_classes)
    trial = Trial(deployed, runtime)
    source = trial.add("float32", tuple(part.read_bytes() for part in form.parts(deployed.path)))
    if not math.isfinite(source.metrics.loss):
        raise UserError(f"{deployed.path}: its logits are not finite (NaN or infinity); export it again")
    network.calibrate(calibration)
    chosen = {kinds[0]: int8(network, trial, calibration[: _costed(deployed)], goal)}
    if "float16" in kinds:
        chosen["float16"] = trial.add("float16", network.float16())
    for variant in chosen.values():
        _check_goal(deployed, variant, source, goal, len(network.layers))
    contents: dict[Path, bytes] = {}
    beside: dict[Path, bytes] = {}
    written: dict[Path, Variant] = {}
    for kind, variant in chosen.items():
        description = form.bound({**_description(deployed, variant), **network.said(variant.parts)}, variant.parts)
        parts = network.described(variant.parts, json_text.dumps(description))
        written[files[kind]] = replace(variant, parts=parts)
        contents |= zip(form.parts(files[kind]), parts, strict=True)
        beside[form.description_beside(files[kind])] = json_text.dumps(description, indent=1).encode()
    paths.make_folder(folder, "--out")
    own_files.check_replaceable(names, overwrite, deployed.path)
    intact.write_all_atomically({**contents, **beside}, with_sidecar=contents)
    batch = deployed.batch or 1
    latencies = latency([deployed.path, *written], trial.some_image(batch)) if timed and not target else {}
    return Result(
        deployed.path,
        tuple(trial.variants),
        written,
        latencies,
        len(network.layers),
        len(calibration),
        trial.samples,
        batch,
        network.findings if isinstance(network, MicroQuantizer) else None,
    )


def _quantizer(deployed: Deployment, target: Target | None) -> Quantizer:
    """What makes an int8 file of a file of its format. Raises UserError where nothing does, or it is one already."""
    form = formats.of(deployed.path)
    if form not in QUANTIZERS:
        known = ", ".join(each.suffix for each in QUANTIZERS)
        raise UserError(f"{deployed.path}: no int8 is made of {form.name} here; give a {known} file")
    if "quantization" in artifact.description_of(deployed.path):
        raise already_smaller(deployed.path)
    return MicroQuantizer(deployed, target) if target else QUANTIZERS[form](deployed)


def _costed(deployed: Deployment) -> int:
    _, (_, *outputs) = replace(deployed, free_size=False).graph_shapes
    return max(1, min(_COST_IMAGES, _COST_LOGITS // math.prod(size or 1 for size in outputs)))


def _check_goal(deployed: Deployment, variant: Variant, source: Variant, goal: Goal, layers: int) -> None:
    if goal.anyway or reaches(variant, source, goal):
        return
    in_float = f" with {len(variant.float_layers)} of {layers} layers in float" if variant.float_layers else ""
    task, reached, wanted = tasks.of(deployed.config), variant.metrics.score, source.metrics.score
    numbers = f"{reached:.2f} for {wanted:.2f}{task.score_unit}: {wanted - reached:.2f} points less"
    raise UserError(
        f"{deployed.path}: nothing written: the best that was reached, {variant.kind}{in_float}, has "
        f"{task.score_title} {numbers}, over --max_drop {goal.max_drop:g}; allow more, raise --max_float or "
        "--calib_images, or give --write_anyway"
    )


def _description(deployed: Deployment, variant: Variant) -> dict[str, Any]:
    """The description of a variant: that of its source, and what became of it."""
    return {
        **artifact.description_of(deployed.path),
        "quantization": {
            "kind": variant.kind,
            "float_layers": [layer.name for layer in variant.float_layers],
            "source": {
                "file": deployed.path.name,
                "sha256": hashlib.sha256(deployed.path.read_bytes()).hexdigest(),
            },
        },
    }
