"""An exported ONNX file -> an int8 and a float16 one that were evaluated against it before they are kept.

Int8 is static: ranges of the activations are measured on images, and weights and activations are integers (QDQ form).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import inference, weights_file
from .config import Config
from .data import dataset, images, transforms
from .deployment import ENTRY, Deployment
from .distributed import ALONE
from .epochs import Evaluator
from .errors import UserError

log = logging.getLogger("ghostnet")

# Scales of a layer's weights: one for all, or one for each of its output channels.
MODES = ("per-tensor", "per-channel")

_SEED = 0  # of the choice of calibration images
_BATCH = 16  # images that are calibrated on at once
_COST_IMAGES = 64  # on which the cost of a layer is measured
_COST_SECONDS = 600  # after which layers stay unmeasured, and in int8
_ROUNDS, _ROUND_SECONDS = 100, 20.0  # of the latency: at most
_EPSILON = 1e-9  # points of top-1: differences of counts are not exact


@dataclass(frozen=True)
class Goal:
    """What an int8 file has to keep.

    Attributes:
        max_drop: points of top-1 that it may lose.
        max_float: percent of the layers that may stay in float for that.
        anyway: take the best that was reached where that is not enough.
    """

    max_drop: float = 0.5
    max_float: float = 50.0
    anyway: bool = False


@dataclass(frozen=True)
class Layer:
    """A convolution or the classifier, with the operators up to the next one.

    Attributes:
        name: of its weights.
        nodes: names of its operators.
        cost: what it does to the logits when it alone is int8: root mean square of their change, as a share of that of
            the logits; None where it was not measured.
    """

    name: str
    nodes: tuple[str, ...]
    cost: float | None = None


@dataclass(frozen=True)
class Variant:
    """A form of the network, and what was measured of it.

    Attributes:
        kind: "float32", "int8 per-tensor", "int8 per-channel" or "float16".
        content: of its file.
        top_1, top_5: percent of the validation images; `top_5` is None with fewer than five classes.
        loss: mean cross-entropy, in nats.
        float_layers: those that an int8 form has in float.
    """

    kind: str
    content: bytes
    top_1: float
    top_5: float | None
    loss: float
    float_layers: tuple[Layer, ...] = ()


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
    kept = {key: value for key, value in vars(variant).items() if key not in ("content", "float_layers")}
    return {**kept, "size": len(variant.content), "float_layers": layers}


def quantize(
    deployed: Deployment,
    config: Config,
    calib_dir: Path,
    calib_images: int = 256,
    goal: Goal | None = None,
    float16: bool = False,
    folder: Path | None = None,
) -> Result:
    """Write `<stem>_int8.onnx`, with `float16` `<stem>_float16.onnx`, and a description beside each.

    Both modes are evaluated with all layers in int8. Where the better one loses too much, the layers that cost most
    are left in float: as few as will do.

    Args:
        deployed: the exported file, in float.
        config: says where the validation images are; its network is that of `deployed`.
        calib_dir: image folder, of any depth; for a data set in binary form also its own folder.
        calib_images: how many of them are used, chosen by a fixed seed.
        goal: default, half a point of top-1.
        folder: where the files go; None is that of `deployed`.

    Raises:
        UserError: a file or folder that is not fit, a library that is missing, or a goal that is not reached: nothing
            is written then.
        RunError: a file cannot be written.
    """
    goal = goal or Goal()
    folder = folder or deployed.path.parent
    network = Quantizer(deployed)
    calibration = calibration_images(config, calib_dir, calib_images, deployed.classes)
    trial = Trial(deployed, config)
    source = trial.add("float32", deployed.path.read_bytes())
    log.info(f"calibration: {len(calibration)} images of {calib_dir}")
    network.calibrate(calibration)
    chosen = {"int8": _int8(network, trial, calibration[:_COST_IMAGES], goal)}
    if float16:
        chosen["float16"] = trial.add("float16", to_float16(deployed.path))
    for variant in chosen.values():
        _check_goal(deployed.path, variant, source, goal, len(network.layers))
    named = {folder / f"{deployed.path.stem}_{kind}.onnx": variant for kind, variant in chosen.items()}
    written = {path: replace(v, content=_described(v, deployed.path)) for path, v in named.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be made ({error.strerror}); give another folder") from error
    contents = {path: variant.content for path, variant in written.items()}
    described = {path.with_suffix(".json"): _description_beside(content) for path, content in contents.items()}
    weights_file.write_all_atomically({**contents, **described})
    batch = deployed.batch or 1
    latencies = latency([deployed.path, *written], trial.some_image(batch))
    tried = tuple(trial.variants)
    return Result(deployed.path, tried, written, latencies, len(network.layers), len(calibration), trial.samples, batch)


# --- Images


def calibration_images(config: Config, folder: Path, count: int, classes: Sequence[str]) -> np.ndarray:
    """Images as the network gets them, float32 (N, C, H, W), N up to `count`, chosen by a fixed seed.

    Raises UserError where there is none, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--calib_dir: {folder}: no such folder; give one with images, such as the training split")
    files = images.files_below(folder)
    if files:
        available, read = len(files), lambda index: images.read_image(files[index])
    elif config.dataset != "imagenet":
        samples = dataset.open_split(config.replace(data_dir=str(folder)), "train", classes)
        available, read = len(samples), samples.read
    else:
        raise UserError(f"--calib_dir: {folder}: no image in it or below it; give a folder with .jpg or other images")
    transform = transforms.eval_transform(config)
    chosen = np.random.default_rng(_SEED).permutation(available)[:count]
    inputs = [transform(transforms.as_rgb(read(int(index)), config.in_channels)) for index in chosen]
    return np.stack(inputs).astype(np.float32)


class Trial:
    """Evaluates variants on the validation split, over the data path of validate.py.

    Attributes:
        variants: those evaluated.
        samples: images of the split.
    """

    def __init__(self, deployed: Deployment, config: Config) -> None:
        """Raises UserError where the split cannot be read."""
        self._deployed, self._config = deployed, config
        self._split = dataset.open_split(config, "val", deployed.classes)
        self.samples = len(self._split)
        self.variants: list[Variant] = []

    def add(self, kind: str, content: bytes, float_layers: Sequence[Layer] = ()) -> Variant:
        """Evaluate the file of a variant."""
        with _as_file(content) as path:
            run = inference.open_network(replace(self._deployed, path=path))
            metrics = Evaluator(self._config, self._split, ALONE, run).outcomes().metrics()
        variant = Variant(kind, content, metrics.top_1, metrics.top_5, metrics.loss, tuple(float_layers))
        self.variants.append(variant)
        in_float = f", {len(float_layers)} layers in float" if float_layers else ""
        log.info(f"{kind}{in_float}: top-1 {metrics.top_1:.2f} %, loss {metrics.loss:.4f}")
        return variant

    def some_image(self, batch: int) -> np.ndarray:
        """The first image of the split, `batch` times, as the network gets it."""
        pixels = transforms.as_rgb(self._split.read(0), self._config.in_channels)
        image = np.asarray(transforms.eval_transform(self._config)(pixels), np.float32)
        return np.repeat(image[np.newaxis], batch, axis=0)


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """An ONNX file with this content, for the time of the `with` block."""
    with tempfile.TemporaryDirectory(prefix="ghostnet-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        yield path


def latency(paths: Sequence[Path], image: np.ndarray) -> dict[Path, float]:
    """Median milliseconds of a call in one thread. The files take turns, so that a busy machine slows all alike.

    With more threads, those of one file that wait for work would take time from the other.
    """
    runs = {path: inference.of_onnx(path, threads=1) for path in paths}
    times: dict[Path, list[float]] = {path: [] for path in paths}
    end = time.perf_counter() + _ROUND_SECONDS
    for run in runs.values():
        run(image)
    for _ in range(_ROUNDS):
        for path, run in runs.items():
            started = time.perf_counter()
            run(image)
            times[path].append(1e3 * (time.perf_counter() - started))
        if time.perf_counter() > end:
            break
    return {path: float(np.median(taken)) for path, taken in times.items()}


# --- Int8


class Quantizer:
    """ONNX Runtime's static quantiser for a file; the ranges of the activations are measured once.

    Weights use 7 of the 8 bits: the 8-bit products of x86 processors without VNNI are added up in 16 bits, which full
    weights overflow. So the answers are the same on all processors.

    Attributes:
        layers: in the order of the file.
    """

    def __init__(self, deployed: Deployment) -> None:
        """Raises UserError where the file is not in float, or a library is missing."""
        try:
            import onnx
            from onnxruntime import quantization
            from onnxruntime.quantization import registry
        except ImportError as error:
            raise UserError(f"quantisation needs onnx and onnxruntime ({error}); pip install -e .[export]") from error
        self._model = onnx.shape_inference.infer_shapes(onnx.load(deployed.path))
        graph = self._model.graph
        if any(node.op_type == "QuantizeLinear" for node in graph.node) or any(
            entry.data_type == onnx.TensorProto.FLOAT16 for entry in graph.initializer
        ):
            raise UserError(f"{deployed.path}: int8 or float16 already; give the file that scripts/export.py wrote")
        self._path, self._batch = deployed.path, deployed.batch
        self._operators = sorted({*registry.QDQRegistry, *registry.QLinearOpsRegistry})
        self._types = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
        self._ranges: Any = None
        self.layers = _layers(graph)

    def calibrate(self, inputs: np.ndarray) -> None:
        """Measure the smallest and largest value of each activation on images (N, C, H, W)."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        with tempfile.TemporaryDirectory(prefix="ghostnet-") as temporary:
            augmented = str(Path(temporary) / "augmented.onnx")
            calibrator = create_calibrator(
                self._path, self._operators, augmented, calibrate_method=CalibrationMethod.MinMax
            )
            calibrator.collect_data(_Reader(inputs, self._batch))
            self._ranges = calibrator.compute_data()

    def content(self, mode: str, layers: Sequence[Layer]) -> bytes:
        """The file with some layers in int8."""
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        nodes = [name for layer in layers for name in layer.nodes]
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
        return quantizer.model.model.SerializeToString()

    def costs(self, mode: str, inputs: np.ndarray) -> list[Layer]:
        """The layers with their costs on images (N, C, H, W), the dearest first; those unmeasured last."""
        expected = self._logits(self._path.read_bytes(), inputs)
        scale = float(np.sqrt(np.mean(expected**2))) or 1.0
        end, found = time.monotonic() + _COST_SECONDS, []
        for layer in tqdm(self.layers, "cost of layers", unit="layer", leave=False, disable=None):
            cost = None
            if time.monotonic() < end:
                change = self._logits(self.content(mode, [layer]), inputs) - expected
                cost = float(np.sqrt(np.mean(change**2))) / scale
            found.append(replace(layer, cost=cost))
        unmeasured = sum(layer.cost is None for layer in found)
        if unmeasured:
            log.warning(f"{unmeasured} layers were not measured within {_COST_SECONDS} s")
        return sorted(found, key=lambda layer: -1.0 if layer.cost is None else layer.cost, reverse=True)

    def _logits(self, content: bytes, inputs: np.ndarray) -> np.ndarray:
        with _as_file(content) as path:
            run = inference.of_onnx(path)
        # In batches, for the sake of memory.
        return inference.in_batches(run, self._batch or _BATCH)(inputs)


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
    """Calibration images as ONNX Runtime asks for them; a file's fixed batch is filled with copies of the last."""

    def __init__(self, inputs: np.ndarray, batch: int | None) -> None:
        self._batches = self._split(inputs, batch)

    @staticmethod
    def _split(inputs: np.ndarray, batch: int | None) -> Iterator[dict[str, np.ndarray]]:
        size = batch or _BATCH
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            missing = size - len(part) if batch else 0
            yield {"image": np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])}

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self._batches


def _int8(network: Quantizer, trial: Trial, inputs: np.ndarray, goal: Goal) -> Variant:
    """The int8 form that reaches the goal with the fewest layers in float; the most accurate one where none does."""
    source = trial.variants[0]
    forms = {mode: trial.add(f"int8 {mode}", network.content(mode, network.layers)) for mode in MODES}
    mode = max(forms, key=lambda mode: _merit(forms[mode], source))
    if reaches(forms[mode], source, goal):
        return forms[mode]
    ranked = network.costs(mode, inputs)
    # One layer at least is in int8.
    limit = min(int(len(ranked) * goal.max_float / 100), len(ranked) - 1)
    found: dict[int, Variant] = {0: forms[mode]}

    def enough(count: int) -> bool:
        found[count] = trial.add(f"int8 {mode}", network.content(mode, ranked[count:]), ranked[:count])
        return reaches(found[count], source, goal)

    count = fewest(enough, limit)
    return max(found.values(), key=lambda variant: _merit(variant, source)) if count is None else found[count]


def _merit(variant: Variant, source: Variant) -> tuple[float, float]:
    # Of two that are right as often, the one that is more like the float file.
    return variant.top_1, -abs(variant.loss - source.loss)


def reaches(variant: Variant, source: Variant, goal: Goal) -> bool:
    """Whether a variant loses no more of the top-1 of `source` than it may."""
    return source.top_1 - variant.top_1 <= goal.max_drop + _EPSILON


def fewest(enough: Callable[[int], bool], limit: int) -> int | None:
    """The least number from 1 to `limit` that is enough, by doubling and halving: numbers above one are too.

    Accuracy does not grow quite like that, so the number is enough, but a smaller one may be as well. None where no
    number that was tried is; `limit` is one of them.
    """
    low, high = 0, 1
    while high < limit and not enough(high):
        low, high = high, 2 * high
    if high >= limit:
        high = limit
        if limit <= low or not enough(limit):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_goal(path: Path, variant: Variant, source: Variant, goal: Goal, layers: int) -> None:
    if goal.anyway or reaches(variant, source, goal):
        return
    in_float = f" with {len(variant.float_layers)} of {layers} layers in float" if "int8" in variant.kind else ""
    raise UserError(
        f"{path}: nothing written: the best that was reached, {variant.kind}{in_float}, has top-1 {variant.top_1:.2f} "
        f"for {source.top_1:.2f} %: {source.top_1 - variant.top_1:.2f} points less, over --max_drop {goal.max_drop:g}; "
        f"allow more, raise --max_float or --calib_images, or give --write_anyway"
    )


# --- Float16


def to_float16(path: Path) -> bytes:
    """The file in float16; its input and output stay float32."""
    import onnx
    from onnxruntime.transformers import float16

    return float16.convert_float_to_float16(onnx.load(path), keep_io_types=True).SerializeToString()


# --- Description


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
    onnx.helper.set_model_props(model, {**given, ENTRY: json.dumps(description)})
    return model.SerializeToString()


def _description_beside(content: bytes) -> bytes:
    import onnx

    entries = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    return json.dumps(json.loads(entries[ENTRY]), indent=1).encode()
