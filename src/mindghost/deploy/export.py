"""A checkpoint -> files for other runtimes that were run and compared with it before they are kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
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
from ..inference import formats as file_formats
from ..inference.batches import in_batches
from ..inference.deployment import Deployment
from ..models.network import Network as Classifier
from ..runtime import in_mode
from . import fold, own_files
from .probe_images import comparison_images
from .writers import WRITERS, Source, Writer

# Images (N, C, H, W), and the logits and embeddings that the checkpoint gives for them; None where none are wanted.
Probe = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]
log = logging.getLogger("mindghost")

# What is written where nobody says: what MindSpore and most other runtimes take.
USUAL = ("mindir", "onnx")
# Largest difference of a logit from the checkpoint's, as a share of the largest logit.
TOLERANCE = 1e-4
# The same for a network that was trained for integers, whose runtimes fuse layers and round a map once where MindSpore
# does twice: 0.003 to 0.03 by ONNX Runtime on what was tried. Without fusions the tests allow 1e-4.
INTEGER_TOLERANCE = 0.1


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        description: of the file with classes and preprocessing in readable form.
        size: in bytes, with the files that belong to it.
        difference: largest one between its logits and the checkpoint's, as a share of the largest logit.
        images: that were compared.
        real: how many of them were images of the run's data, and not made-up ones.
        sizes: height and width that they had; of a file for any size two.
        embedding: the same as `difference` of its embeddings; None where it gives none.
    """

    path: Path
    description: Path
    size: int
    difference: float
    images: int
    real: int
    sizes: tuple[tuple[int, int], ...] = ()
    embedding: float | None = None


def export(
    deployed: Deployment,
    formats: Sequence[str],
    folder: Path | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    free_size: bool = False,
    embedding: bool = False,
) -> list[Exported]:
    """Write a checkpoint's network in each of `formats`, the sha256 of each file and a description beside it.

    Every file is compared before any is written. They have the stem of the checkpoint.

    Args:
        deployed: the checkpoint; its `config` says where its images are.
        formats: of `inference.formats.NAMES`.
        folder: where they go; None is that of the checkpoint.
        batch: images that a file takes at once; None makes files for any number.
        overwrite: replace files that are there, also those that no export made.
        free_size: the files take images of any height and width; ONNX and OpenVINO only, of a task that says
            something of each pixel.
        embedding: the files give embeddings (`Network.forward_head(pre_logits=True)`) beside logits; ONNX and MindIR
            only, of a classifier.

    Raises:
        UserError: weights that do not fit, a library that is missing, a file with other logits than the checkpoint, or
            one in its place that no export made.
        RunError: a file cannot be written.
    """
    writers = [WRITERS[kind] for kind in formats]
    for writer in writers:
        writer.check()
    if deployed.config.quantize_aware is not None:
        _check_integers(deployed, writers)
    if free_size:
        _check_free_size(deployed.config, writers)
    if embedding:
        _check_embedding(deployed.config, writers)
    wanted = replace(deployed, batch=batch, free_size=free_size)
    # Before the work: a format may not be for so many images at once.
    for writer in writers:
        writer.target(wanted)
    folder = folder or deployed.path.parent
    paths.make_folder(folder, "--out")
    files = [writer.path(folder, deployed.path.stem) for writer in writers]
    names = [name for writer, file in zip(writers, files, strict=True) for name in _names(writer, file)]
    own_files.check_replaceable(names, overwrite, deployed.path)
    network, probes, real = _network(deployed, free_size, embedding)
    if embedding:
        wanted = replace(wanted, embedding=network.num_features)
        network = WithEmbedding(network)
    targets = [writer.target(wanted) for writer in writers]
    results: list[Exported] = []
    contents: dict[Path, bytes] = {}
    described: dict[Path, bytes] = {}
    with scratch.folder("export") as temporary:
        sources: dict[str, Source] = {}
        for writer, target, path in zip(writers, targets, files, strict=True):
            description = _description(target)
            text = json_text.dumps(description)
            if text not in sources:
                place = temporary / str(len(sources))
                place.mkdir()
                sources[text] = Source(network, target, description, place)
            result, parts, said = _made(writer, sources[text], path, probes, real)
            results.append(result)
            contents |= parts
            described[result.description] = json_text.dumps(said, indent=1).encode()
    own_files.check_replaceable(names, overwrite, deployed.path)
    intact.write_all_atomically({**contents, **described}, with_sidecar=contents)
    return results


def _made(
    writer: Writer, source: Source, path: Path, probes: Sequence[Probe], real: int
) -> tuple[Exported, dict[Path, bytes], dict[str, Any]]:
    """A file, compared, which will be `path`: what there is to say of it, its content with that of its parts.

    Last comes its description.
    """
    form, target = writer.form, source.target
    draft = writer.path(source.folder, "draft")
    writer.write(source, draft)
    description = form.bound(source.description, [part.read_bytes() for part in form.parts(draft)])
    writer.describe(draft, description)
    difference = max(compare(draft, target.batch, images, logits) for images, logits, _ in probes)
    _check_difference(path, target, "logits", difference)
    of_embedding = None
    if target.embedding is not None:
        pairs = [(images, found) for images, _, found in probes if found is not None]
        of_embedding = max(compare(draft, target.batch, *pair, embedding=True) for pair in pairs)
        _check_difference(path, target, "embeddings", of_embedding)
    parts = {part: made.read_bytes() for part, made in zip(form.parts(path), form.parts(draft), strict=True)}
    sizes = tuple((images.shape[2], images.shape[3]) for images, *_ in probes)
    size, images, beside = sum(map(len, parts.values())), len(probes[0][0]), form.description_beside(path)
    return Exported(path, beside, size, difference, images, real, sizes, of_embedding), parts, description


def _check_difference(path: Path, target: Deployment, what: str, difference: float) -> None:
    tolerance = TOLERANCE if target.config.quantize_aware is None else INTEGER_TOLERANCE
    if not difference <= tolerance:
        raise UserError(
            f"{path}: not kept: its {what} differ from the checkpoint's by {difference:.1e} of their size, over "
            f"{tolerance:.0e}; use another --format, and report {target.config.model} with this image size"
        )


def _names(writer: Writer, file: Path) -> list[Path]:
    """All files that are written for one, but digests."""
    return [*writer.form.parts(file), writer.form.description_beside(file)]


class WithEmbedding(nn.Cell):
    """A classifier that gives embeddings (N, num_features) beside its logits (N, num_classes).

    Args:
        network: the classifier, whose parameters keep their names.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.classifier = network.get_classifier()

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, in_channels, H, W) -> logits and embeddings."""
        embedding = self.network.forward_head(self.network.forward_features(x), True)
        return self.classifier(embedding), embedding


def _network(deployed: Deployment, free_size: bool, embedding: bool) -> tuple[nn.Cell, list[Probe], int]:
    """A checkpoint's network as it is deployed, what it says of some images, and whether these are the run's own."""
    config = deployed.config.replace(val_amp_level="O0")
    trained, loaded = build.trained_network(config)
    trained.set_train(False)
    log.info(str(loaded))
    images, real = comparison_images(deployed)
    probes = [images]
    if free_size:
        probes.append(comparison_images(replace(deployed, config=config.replace(image_resize=_other_size(images))))[0])
    with in_mode(ms.PYNATIVE_MODE):
        compared = [
            (probe, trained(Tensor(probe)).asnumpy(), _embeddings(trained, probe, embedding)) for probe in probes
        ]
        if config.quantize_aware is not None:
            return fold.with_stand_ins(trained), compared, real
        return fold.deployed_form(config.model, trained, **build.options(config)), compared, real


def _embeddings(trained: nn.Cell, images: NDArray[Any], wanted: bool) -> NDArray[Any] | None:
    """What a classifier gives before its last layer; None where that is not wanted."""
    if not wanted:
        return None
    return trained.forward_head(trained.forward_features(Tensor(images)), pre_logits=True).asnumpy()


def _check_embedding(config: Config, writers: Sequence[Writer]) -> None:
    task = tasks.of(config)
    if task.is_dense:
        raise UserError(f"--embedding: task {task.name} has a class for each pixel, and no embedding; leave it out")
    without = next((writer for writer in writers if not writer.embedding), None)
    if without is not None:
        raise UserError(
            f"--embedding: files for {without.form.runtime} carry none; give --format onnx or mindir, or leave it out"
        )


def _check_free_size(config: Config, writers: Sequence[Writer]) -> None:
    task = tasks.of(config)
    if not task.is_dense:
        raise UserError(
            f"--free_size: task {task.name} resizes all images to one size; leave it out, or give weights of a network "
            "that gives each pixel a class"
        )
    fixed = next((writer for writer in writers if not writer.free_size), None)
    if fixed is not None:
        raise UserError(
            f"--free_size: files for {fixed.form.runtime} take images of one size; give --format onnx or openvino"
        )


def _check_integers(deployed: Deployment, writers: Sequence[Writer]) -> None:
    without = next((writer.form.name for writer in writers if not writer.integers), None)
    if without is not None:
        fitting = ", ".join(name for name, writer in WRITERS.items() if writer.integers)
        raise UserError(
            f"--format {without}: {deployed.path} is trained for integers, which files for {without} are not made of "
            f"here; give one of {fitting}, or export a checkpoint in float and quantise it"
        )


def _other_size(images: NDArray[Any]) -> tuple[int, int]:
    """Another height and width than that of some images, (N, C, H, W): odd numbers, and other proportions."""
    height, width = images.shape[2:]
    return (height * 3 // 4) | 1, (width * 5 // 4) | 1


def _description(target: Deployment) -> dict[str, object]:
    source = {"file": target.path.name, "sha256": hashlib.sha256(target.path.read_bytes()).hexdigest()}
    said = target.describe()
    meaning = tasks.of(target.config).outputs_mean
    if target.temperature is not None:
        meaning += " once they are divided by the temperature"
    said["preprocessing"] = {**said["preprocessing"], "output": meaning}
    if target.config.quantize_aware is not None:
        said["quantization"] = {"kind": f"{target.config.quantize_aware}, trained"}
    return {**said, "source": source, "ghostnet": __version__, "mindspore": ms.__version__}


# --- Comparing


def compare(
    path: Path, batch: int | None, images: NDArray[Any], expected: NDArray[Any], embedding: bool = False
) -> float:
    """The largest difference of a file's logits from those expected, as a share of the largest of these.

    A file for any number of images is run on one of them and on all. `embedding`: its embeddings are compared.
    """
    form = file_formats.of(path)
    run = form.embedding(path) if embedding else form.network(path)
    if batch is None:
        found = [(run(images[:1]), expected[:1]), (run(images), expected)]
    else:
        found = [(in_batches(run, batch)(images), expected)]
    scale = float(np.abs(expected).max()) or 1.0
    return max(float(np.abs(outputs - wanted).max()) for outputs, wanted in found) / scale
