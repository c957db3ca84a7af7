"""Images -> vectors, as fast as an evaluation; what was done is kept, so that an interrupted run goes on.

Beside the file that is to be made lies a folder of work, `.NAME.work`: parts of vectors, each whole or not there, and
`work.json`, which says of which network and images they are: the sha256 of the weight file with all that makes its
input (`Origin`), the precision, and a sha256 over the names, sizes and times of all images in their order. A run goes
on where all of that is the same, and starts afresh, with a line, where it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tasks
from ..data import evaluation, transforms
from ..data.samples import Samples
from ..errors import UserError
from ..evaluate import batch
from ..files import intact, json_text, lock, paths
from ..files.npz import npy
from ..inference import artifact
from ..inference.batches import filled
from ..inference.deployment import Deployment
from ..inference.formats import Network
from ..inference.opening import opened
from ..process import resources
from .reading import ReadImages
from .vectors import DIGEST_BYTES, DTYPES, Origin, Vectors

log = logging.getLogger("mindghost")

_FACTS = "work.json"
_FIELDS = ("vector", "digest", "good")
_SECONDS = 10.0  # of work that may be lost
# From this many images on, compiling the network as a graph takes less time than it saves.
MANY = 128

Progress = Callable[[int], None]


def origin_of(deployed: Deployment) -> Origin:
    """The network of a file, as files of vectors note it.

    Raises UserError where an exported file does not say of which checkpoint it was made.
    """
    config, precision = deployed.config, deployed.config.val_amp_level
    preprocessing = tasks.of(config).describe_evaluation(config)
    if not deployed.exported:
        digest = hashlib.sha256(paths.read(deployed.path, "give another file")).hexdigest()
        return Origin(config.model, digest, "float32" if precision == "O0" else precision, preprocessing)
    said = artifact.description_of(deployed.path)
    source, made_smaller = said.get("source"), said.get("quantization")
    checkpoint = source.get("sha256") if isinstance(source, dict) else None
    if not isinstance(checkpoint, str):
        raise UserError(f"{deployed.path}: does not say of which checkpoint it was made; export it again")
    kind = made_smaller.get("kind") if isinstance(made_smaller, dict) else "float32"
    return Origin(config.model, checkpoint, str(kind), preprocessing)


@dataclass(frozen=True)
class Embedder:
    """A network that makes vectors of images.

    Attributes:
        deployed: what the network gets.
        network: images (N, channels, height, width) float32 -> vectors (N, dimensions) float32, of length 1.
        batch_size: images that it gets at once.
        origin: what files of vectors say of it.
    """

    deployed: Deployment
    network: Network
    batch_size: int
    origin: Origin

    @classmethod
    def open(cls, deployed: Deployment, images: int, batch_size: int | None = None, logits: bool = False) -> Embedder:
        """The network of a file, on the device of this machine.

        Args:
            deployed: the file.
            images: how many there will be: from `MANY` on the network is compiled as a graph.
            batch_size: images at once; None: as many as suit the machine.
            logits: in place of vectors it gives the logits of a classifier, (N, classes) float32, as they are.

        Raises UserError for a file that is damaged, or has no embedding.
        """
        network = opened(deployed, mode=0 if images >= MANY else 1, embedding=not logits)
        pixels = math.prod(transforms.input_size(deployed.config))
        size = batch_size or batch.fitting(pixels, resources.free_memory())
        return cls(deployed, batch.sparing(network), max(1, min(size, images)), origin_of(deployed))

    def vectors(
        self,
        samples: Sequence[Samples],
        work: Path | None = None,
        dtype: str = DTYPES[0],
        progress: Progress = lambda count: None,
        needs_one: bool = True,
    ) -> tuple[Vectors, dict[str, str]]:
        """The vectors of images, and why others have none: they cannot be read.

        Args:
            samples: of any layout, one after the other.
            work: folder for what is done, from which a run that was interrupted goes on; it stays (`finish` deletes
                it). None: none is kept.
            dtype: of the vectors, one of `DTYPES`.
            progress: called with the number of images that were done.
            needs_one: it is an error if no image can be read; otherwise there are no vectors then.

        Returns:
            The vectors, in the order of the images, and the problem of each image that cannot be read, by its name.
            Labels are the network's, where it knows all classes of the samples.

        Raises:
            UserError: the folder of work is in use, or no image can be read and one is needed.
            RunError: what is done cannot be written, or the machine lacks what reading takes.
        """
        images = ReadImages.of(samples, self.deployed.known_classes or ())
        # Before they are read: one that changes meanwhile is found to have changed later.
        files = images.sizes_and_times()
        with contextlib.ExitStack() as stack:
            keeper = None
            if work is not None:
                keeper = _Work(work, self._facts(images, files, dtype), len(images))
                stack.callback(keeper.release)
            vectors, problems = self._settled(images, files, self._parts(images, keeper, dtype, progress))
        if needs_one and not len(vectors):
            raise UserError(f"{images.problem(0)}; and no other of {len(images):,} images can be read")
        return vectors, problems

    def _parts(self, images: ReadImages, keeper: _Work | None, dtype: str, progress: Progress) -> list[NDArray[Any]]:
        """Rows for all images: those that an earlier run has made, and new ones."""
        parts = list(keeper.parts()) if keeper else []
        done = sum(map(len, parts))
        if done:
            log.info(f"{done:,} of {len(images):,} images were done by an earlier run, which this one goes on with")
            progress(done)
        for rows in _in_portions(self._rows(images, done, dtype, progress), keeper is not None):
            if keeper:
                keeper.keep(rows)
            parts.append(rows)
        return parts

    def _facts(self, images: ReadImages, files: NDArray[Any], dtype: str) -> dict[str, Any]:
        network = {**self.origin.record(), "dtype": dtype, "file": self.deployed.path.suffix}
        digest = hashlib.sha256(images.digest().encode() + files.tobytes()).hexdigest()
        return {"network": network, "images": digest, "count": len(images)}

    def _rows(self, images: ReadImages, done: int, dtype: str, progress: Progress) -> Iterator[NDArray[Any]]:
        """For each batch behind those that are done: its vectors, digests, and why others have none."""
        config = self.deployed.config.replace(batch_size=self.batch_size, eval_shuffle=False)
        for pixels, notes in evaluation.eval_batches(config, images.rest(done)):
            found = self.network(filled(pixels, self.batch_size))[: len(pixels)]
            rows = np.empty(len(pixels), _row(found.shape[1], dtype))
            rows["vector"], rows["digest"], rows["good"] = found, notes["digest"], notes["good"]
            yield rows
            progress(len(rows))

    def _settled(
        self, images: ReadImages, files: NDArray[Any], parts: list[NDArray[Any]]
    ) -> tuple[Vectors, dict[str, str]]:
        """Of the rows of all images: the vectors, and the problems of those that have none."""
        good = np.concatenate([part["good"] for part in parts])
        names = [images.name(index) for index in range(len(images))]
        vectors = Vectors(
            np.concatenate([part["vector"][part["good"]] for part in parts]),
            np.array([name for name, is_good in zip(names, good.tolist(), strict=True) if is_good], str),
            images.labels[good].astype(np.int32),
            images.classes,
            files[good, 0],
            files[good, 1],
            np.concatenate([part["digest"][part["good"]] for part in parts]),
            self.origin,
        )
        return vectors, {names[index]: images.problem(index) for index in np.flatnonzero(~good).tolist()}


def _row(dimensions: int, dtype: str) -> np.dtype[Any]:
    vector, digest, good = _FIELDS
    return np.dtype([(vector, dtype, (dimensions,)), (digest, "u1", (DIGEST_BYTES,)), (good, "?")])


def _in_portions(batches: Iterator[NDArray[Any]], timed: bool) -> Iterator[NDArray[Any]]:
    """Batches joined to portions of some seconds of work."""
    portion: list[NDArray[Any]] = []
    begun = time.monotonic()
    for rows in batches:
        portion.append(rows)
        if timed and time.monotonic() - begun > _SECONDS:
            yield np.concatenate(portion)
            portion, begun = [], time.monotonic()
    if portion:
        yield np.concatenate(portion)


class _Work:
    """What is done of vectors, on the disk.

    Raises UserError where another process works there, or the folder holds something else.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], count: int) -> None:
        self._folder, self._count, self._parts = folder, count, 0
        paths.make_folder(folder, "-o")
        self._lock = lock.FolderLock(folder, "-o")
        self._lock.take()
        text = json_text.dumps(facts)
        said = folder / _FACTS
        if paths.exists(said) and paths.read(said, "delete it", json_text.MOST_BYTES).decode(errors="replace") != text:
            log.info(f"{folder}: was begun with another network or other images: it starts afresh")
            self._delete_parts()
        intact.write_atomically(said, text.encode())

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06}.part"

    def parts(self) -> Iterator[NDArray[Any]]:
        """The parts that are whole, one after the other."""
        done = 0
        while paths.is_file(self._part(self._parts)):
            rows = _rows_in(paths.read(self._part(self._parts), "delete it"))
            if rows is None or done + len(rows) > self._count:
                log.info(f"{self._part(self._parts)}: damaged: it is made again, and what comes behind it")
                break
            self._parts, done = self._parts + 1, done + len(rows)
            yield rows

    def release(self) -> None:
        """Let another run in."""
        self._lock.release()

    def keep(self, rows: NDArray[Any]) -> None:
        """Write a part behind the others."""
        content = io.BytesIO()
        npy.write_array(content, rows, allow_pickle=False)
        intact.write_atomically(self._part(self._parts), intact.seal(content.getvalue()))
        self._parts += 1

    def _delete_parts(self) -> None:
        for name in paths.names_in(self._folder):
            if name.endswith(".part"):
                (self._folder / name).unlink(missing_ok=True)


def _rows_in(content: bytes) -> NDArray[Any] | None:
    """The rows that a part holds; None where it is damaged."""
    whole = intact.unseal(content)
    try:
        rows = None if whole is None else npy.read_array(io.BytesIO(whole), allow_pickle=False)
    except ValueError:
        return None
    return rows if rows is not None and rows.dtype.names == _FIELDS and rows.ndim == 1 else None


def work_of(output: Path) -> Path:
    """Where the work for a file is kept until the file is there."""
    return output.with_name(f".{output.name}.work")


def finish(work: Path) -> None:
    """Delete a folder of work, once its vectors are where they should be."""
    if (work / _FACTS).is_file():
        shutil.rmtree(work, ignore_errors=True)
