"""An exported ONNX file -> an int8 and a float16 one that were evaluated against it before they are kept.

Int8 is static: ranges of the activations are measured on images, and weights and activations are integers (QDQ form).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import tasks
from ...config import Config
from ...data import dataset, images, transforms
from ...data import pack as packs
from ...data.samples import Samples
from ...errors import UserError
from ...files import intact, json_text, paths
from ...inference.deployment import Deployment
from ...inference.formats import ENTRY
from ...inference.formats.onnx_file import content_of
from ...runtime import Runtime
from .. import own_files
from .search import Goal, int8, reaches
from .static import Quantizer
from .trial import Trial, Variant, latency

log = logging.getLogger("mindghost")

_SEED = 0  # of the choice of calibration images
# Images on which the cost of a layer is measured: at most, and as many as have so many logits.
_COST_IMAGES, _COST_LOGITS = 64, 2**26


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
    """

    source: Path
    tried: tuple[Variant, ...]
    written: dict[Path, Variant]
    latencies: dict[Path, float]
    layers: int
    calibrated: int
    evaluated: int
    batch: int

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
                {"path": str(path), **_figures(variant), "latency_ms": self.latencies[path]}
                for path, variant in files.items()
            ],
        }


def _figures(variant: Variant) -> dict[str, Any]:
    layers = [{"name": layer.name, "cost": layer.cost} for layer in variant.float_layers]
    numbers = {key: value for key, value in variant.metrics.result().items() if key != "num_samples"}
    return {"kind": variant.kind, **numbers, "size": len(variant.content), "float_layers": layers}


def quantize(
    deployed: Deployment,
    runtime: Runtime,
    calib_dir: Path,
    calib_images: int = 256,
    goal: Goal | None = None,
    float16: bool = False,
    folder: Path | None = None,
    overwrite: bool = False,
) -> Result:
    """Write `<stem>_int8.onnx`, with `float16` `<stem>_float16.onnx`, and a description beside each.

    Both modes are evaluated with all layers in int8. Where the better one loses too much, the layers that cost most
    are left in float: as few as will do.

    Args:
        deployed: the exported file, in float.
        runtime: its configuration says where the validation images are; its network is that of `deployed`.
        calib_dir: image folder, of any depth, or a pack; for a data set in binary form also its own folder.
        calib_images: how many of them are used, chosen by a fixed seed.
        goal: default, half a point of top-1.
        folder: where the files go; None is that of `deployed`.
        overwrite: replace files that are there, also those that were not made here.

    Raises:
        UserError: a file or folder that is not fit, a library that is missing, or a goal that is not reached: nothing
            is written then.
        RunError: a file cannot be written.
    """
    goal = goal or Goal()
    folder = folder or deployed.path.parent
    stems = [f"{deployed.path.stem}_{kind}" for kind in ("int8", *(["float16"] if float16 else []))]
    names = [folder / f"{stem}.{end}" for stem in stems for end in ("onnx", "json")]
    own_files.check_replaceable(names, overwrite, deployed.path)
    content = deployed.path.read_bytes()
    if content_of(deployed.path) != content:
        raise UserError(f"{deployed.path}: keeps weights in a second file; export it again as one file")
    network = Quantizer(deployed)
    calibration = calibration_images(runtime.config, calib_dir, calib_images, deployed.known_classes)
    trial = Trial(deployed, runtime)
    source = trial.add("float32", content)
    if not math.isfinite(source.metrics.loss):
        raise UserError(f"{deployed.path}: its logits are not finite (NaN or infinity); export it again")
    network.calibrate(calibration)
    chosen = {"int8": int8(network, trial, calibration[: _costed(deployed)], goal)}
    if float16:
        chosen["float16"] = trial.add("float16", to_float16(deployed.path))
    for variant in chosen.values():
        _check_goal(deployed, variant, source, goal, len(network.layers))
    named = {folder / f"{deployed.path.stem}_{kind}.onnx": variant for kind, variant in chosen.items()}
    written = {path: replace(v, content=_described(v, deployed.path)) for path, v in named.items()}
    paths.make_folder(folder, "--out")
    contents = {path: variant.content for path, variant in written.items()}
    described = {path.with_suffix(".json"): _description_beside(content) for path, content in contents.items()}
    own_files.check_replaceable(names, overwrite, deployed.path)
    intact.write_all_atomically({**contents, **described}, with_sidecar=contents)
    batch = deployed.batch or 1
    latencies = latency([deployed.path, *written], trial.some_image(batch))
    tried = tuple(trial.variants)
    return Result(deployed.path, tried, written, latencies, len(network.layers), len(calibration), trial.samples, batch)


def _costed(deployed: Deployment) -> int:
    _, (_, *outputs) = replace(deployed, free_size=False).graph_shapes
    return max(1, min(_COST_IMAGES, _COST_LOGITS // math.prod(size or 1 for size in outputs)))


def _check_goal(deployed: Deployment, variant: Variant, source: Variant, goal: Goal, layers: int) -> None:
    if goal.anyway or reaches(variant, source, goal):
        return
    in_float = f" with {len(variant.float_layers)} of {layers} layers in float" if "int8" in variant.kind else ""
    task, reached, wanted = tasks.of(deployed.config), variant.metrics.score, source.metrics.score
    numbers = f"{reached:.2f} for {wanted:.2f}{task.score_unit}: {wanted - reached:.2f} points less"
    raise UserError(
        f"{deployed.path}: nothing written: the best that was reached, {variant.kind}{in_float}, has "
        f"{task.score_title} {numbers}, over --max_drop {goal.max_drop:g}; allow more, raise --max_float or "
        "--calib_images, or give --write_anyway"
    )


def calibration_images(config: Config, folder: Path, count: int, classes: Sequence[str] | None) -> NDArray[Any]:
    """Images as the network gets them, float32 (N, C, H, W), N up to `count`, chosen by a fixed seed.

    They are spread over the folders in `folder`, which are the classes where it is a training split, or over the
    classes of a pack or a data set in binary form; a log line says over how many. `classes` is None where the network
    knows no names.

    Raises UserError where there is none, or one cannot be read.
    """
    task = tasks.of(config)
    paths.check_folder(folder, "give one with images, such as the training split", "--calib_dir")
    if packs.is_pack(folder):
        samples: Samples = packs.open_pack(folder)
        groups, read = _by_label(samples.labels), samples.read
    elif found := task.image_groups(folder):
        files = list(itertools.chain(*found))
        places = iter(range(len(files)))
        groups = [list(itertools.islice(places, len(group))) for group in found]
        read = lambda index: images.read_image(files[index])  # noqa: E731
    elif config.dataset != "imagenet":
        samples = dataset.open_split(config.replace(data_dir=str(folder)), "train", classes)
        groups, read = _by_label(samples.labels), samples.read
    else:
        raise UserError(f"--calib_dir: {folder}: no image in it or below it; give a folder with .jpg or other images")
    chosen = _spread(groups, count)
    seen = sum(bool(set(group) & set(chosen)) for group in groups)
    log.info(f"calibration: {len(chosen)} images of {folder}, from {seen} of its {len(groups)} folder(s) or classes")
    outputs = config.num_classes if classes is None else len(classes)
    if outputs is not None and len(groups) < outputs and not task.is_dense:
        log.warning(
            f"--calib_dir: {folder} has images in {len(groups)} folder(s), and the network {outputs} classes: "
            "ranges measured on images of all classes lose less"
        )
    transform = task.eval_transform(config)
    inputs = [transform(transforms.as_rgb(read(index), config.in_channels)) for index in chosen]
    return np.stack(inputs).astype(np.float32)


def _by_label(labels: NDArray[Any]) -> list[list[int]]:
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]


def _spread(groups: list[list[int]], count: int) -> list[int]:
    """Up to `count` members, as many of each group as of every other, as far as it has them: drawn by a fixed seed."""
    generator = np.random.default_rng(_SEED)
    shuffled = [generator.permutation(group).tolist() for group in groups]
    order = generator.permutation(len(groups))
    rounds = range(max(map(len, groups)))
    turns = (shuffled[group][turn] for turn in rounds for group in order if turn < len(shuffled[group]))
    return list(itertools.islice(turns, count))


def to_float16(path: Path) -> bytes:
    """The file in float16; its input and output stay float32."""
    import onnx
    from onnxruntime.transformers import float16

    return float16.convert_float_to_float16(onnx.load(path), keep_io_types=True).SerializeToString()


def _described(variant: Variant, source: Path) -> bytes:
    """The file of a variant, with the description of its source and what became of it."""
    import onnx

    model = onnx.load_model_from_string(variant.content)
    given = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    if ENTRY not in given:
        given[ENTRY] = source.with_suffix(".json").read_text(encoding="utf-8")
    description = json.loads(given[ENTRY])
    description["quantization"] = {
        "kind": variant.kind,
        "float_layers": [layer.name for layer in variant.float_layers],
        "source": {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
    }
    onnx.helper.set_model_props(model, {**given, ENTRY: json_text.dumps(description)})
    return model.SerializeToString()


def _description_beside(content: bytes) -> bytes:
    import onnx

    entries = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    return json_text.dumps(json.loads(entries[ENTRY]), indent=1).encode()
