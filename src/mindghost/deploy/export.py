"""A checkpoint -> MindIR and ONNX files that were run and compared with it before they are kept."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from .. import __version__, build, tasks
from ..config import Config
from ..errors import UserError
from ..files import intact, json_text, paths, scratch
from ..inference import formats
from ..inference.deployment import Deployment
from ..inference.formats import ENTRY
from ..inference.network import in_batches
from . import fold, own_files
from .probe_images import IMAGES, comparison_images

log = logging.getLogger("mindghost")

FORMATS = ("mindir", "onnx")
# Largest difference of a logit from the checkpoint's, as a share of the largest logit.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        size: in bytes.
        difference: largest one between its logits and the checkpoint's, as a share of the largest logit.
        images: that were compared.
        real: whether they were images of the run's data, and not made-up ones.
        sizes: height and width that they had; of a file for any size two.
    """

    path: Path
    size: int
    difference: float
    images: int
    real: bool
    sizes: tuple[tuple[int, int], ...] = ()


def export(
    deployed: Deployment,
    formats: Sequence[str],
    folder: Path | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    free_size: bool = False,
) -> list[Exported]:
    """Write a checkpoint's network in each of `formats`, the sha256 of each file and a description beside it.

    Every file is compared before any is written. They have the stem of the checkpoint.

    Args:
        deployed: the checkpoint; its `config` says where its images are.
        formats: of FORMATS.
        folder: where they go; None is that of the checkpoint.
        batch: images that a file takes at once; None makes files for any number.
        overwrite: replace files that are there, also those that no export made.
        free_size: the files take images of any height and width; ONNX only, of a task that says something of each
            pixel.

    Raises:
        UserError: weights that do not fit, a library that is missing, a file with other logits than the checkpoint, or
            one in its place that no export made.
        RunError: a file cannot be written.
    """
    if "onnx" in formats:
        _check_onnx()
    if free_size:
        _check_free_size(deployed.config, formats)
    folder = folder or deployed.path.parent
    paths.make_folder(folder, "--out")
    names = [folder / f"{deployed.path.stem}.{kind}" for kind in (*formats, "json")]
    own_files.check_replaceable(names, overwrite, deployed.path)
    config = deployed.config.replace(val_amp_level="O0")
    assert config.num_classes is not None  # a `Deployment` has it settled
    trained, loaded = build.trained_network(config)
    trained.set_train(False)
    log.info(str(loaded))
    images, real = comparison_images(deployed)
    probes = [images]
    if free_size:
        probes.append(comparison_images(replace(deployed, config=config.replace(image_resize=_other_size(images))))[0])
    with _mode(ms.PYNATIVE_MODE):
        compared = [(probe, trained(Tensor(probe)).asnumpy()) for probe in probes]
        network = fold.deployed_form(config.model, trained, **build.options(config))
    target = replace(deployed, batch=batch, free_size=free_size)
    description = _description(target)
    results, contents = [], {}
    with scratch.folder("export") as temporary:
        for kind in formats:
            log.info(f"{kind}: MindSpore compiles the network, which takes some tens of seconds")
            path = folder / f"{deployed.path.stem}.{kind}"
            draft = temporary / f"network.{kind}"
            write = _write_onnx if kind == "onnx" else _write_mindir
            write(network, draft, target, json_text.dumps(description))
            difference = max(compare(draft, batch, *pair) for pair in compared)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{path}: not kept: its logits differ from the checkpoint's by {difference:.1e} of their size, "
                    f"over {TOLERANCE:.0e}; use another --format, and report {config.model} with this image size"
                )
            contents[path] = draft.read_bytes()
            sizes = tuple((probe.shape[2], probe.shape[3]) for probe in probes)
            results.append(Exported(path, len(contents[path]), difference, len(images), real, sizes))
    described = {folder / f"{deployed.path.stem}.json": json_text.dumps(description, indent=1).encode()}
    own_files.check_replaceable(names, overwrite, deployed.path)
    intact.write_all_atomically({**contents, **described}, with_sidecar=contents)
    return results


def _check_onnx() -> None:
    for name in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"--format onnx: {name} is missing ({error}); pip install onnx onnxruntime, or give --format mindir"
            ) from error


def _check_free_size(config: Config, formats: Sequence[str]) -> None:
    task = tasks.of(config)
    if not task.is_dense:
        raise UserError(
            f"--free_size: task {task.name} resizes all images to one size; leave it out, or give weights of a network "
            "that gives each pixel a class"
        )
    if "mindir" in formats:
        raise UserError("--free_size: only ONNX files take images of any size; give --format onnx")


def _other_size(images: NDArray[Any]) -> tuple[int, int]:
    """Another height and width than that of some images, (N, C, H, W): odd numbers, and other proportions."""
    height, width = images.shape[2:]
    return (height * 3 // 4) | 1, (width * 5 // 4) | 1


def _description(target: Deployment) -> dict[str, object]:
    source = {"file": target.path.name, "sha256": hashlib.sha256(target.path.read_bytes()).hexdigest()}
    said = target.describe()
    said["preprocessing"] = {**said["preprocessing"], "output": tasks.of(target.config).outputs_mean}
    return {**said, "source": source, "ghostnet": __version__, "mindspore": ms.__version__}


# --- Writing


def _write_mindir(network: nn.Cell, path: Path, target: Deployment, description: str) -> None:
    shape = target.input_shape
    example = Tensor(shape=[target.batch, *shape], dtype=ms.float32)
    if target.batch is not None:
        example = Tensor(np.zeros((target.batch, *shape), np.float32))

    def describe(model: Any) -> None:
        # A map, or with some versions of MindSpore and protobuf what a map is on disk: a list of keys and values.
        if hasattr(model.user_info, "add"):
            model.user_info.add(key=ENTRY, value=description)
        else:
            model.user_info[ENTRY] = description

    with _mode(ms.GRAPH_MODE):
        ms.export(network, example, file_name=str(path), file_format="MINDIR", custom_func=describe)


def _write_onnx(network: nn.Cell, path: Path, target: Deployment, description: str) -> None:
    from . import onnx_fixes, onnx_sizes

    batch = target.batch or IMAGES
    with _mode(ms.GRAPH_MODE), fold.plain_operators(network):
        channels, *size = target.input_shape
        example = Tensor(np.zeros((batch, channels, *(onnx_sizes.TRACED if target.free_size else size)), np.float32))
        ms.export(network, example, file_name=str(path), file_format="ONNX")
    entries = {ENTRY: description}
    content = onnx_fixes.tidy(path.read_bytes(), batch, target.batch is None, entries, target.free_size)
    # MindSpore's file is read-only, to all but root.
    path.unlink()
    path.write_bytes(content)


@contextlib.contextmanager
def _mode(mode: int) -> Iterator[None]:
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        yield
    finally:
        ms.set_context(mode=before)


# --- Comparing


def compare(path: Path, batch: int | None, images: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of a file's logits from those expected, as a share of the largest of these.

    A file for any number of images is run on one of them and on all.
    """
    run = formats.of(path).network(path)
    if batch is None:
        found = [(run(images[:1]), expected[:1]), (run(images), expected)]
    else:
        found = [(in_batches(run, batch)(images), expected)]
    scale = float(np.abs(expected).max()) or 1.0
    return max(float(np.abs(logits - wanted).max()) for logits, wanted in found) / scale
