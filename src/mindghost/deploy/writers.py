"""Who writes each format of exported files: MindIR and ONNX by MindSpore, all others from the ONNX file."""

from __future__ import annotations

import importlib
import logging
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..files import json_text
from ..inference.deployment import Deployment
from ..inference.formats import ENTRY, Format, litert_file, openvino_file
from ..inference.formats.litert_file import LITERT
from ..inference.formats.mindir_file import MINDIR
from ..inference.formats.ncnn_file import NCNN
from ..inference.formats.onnx_file import ONNX
from ..inference.formats.openvino_file import OPENVINO
from ..runtime import in_mode
from . import fold, onnx_fixes, onnx_sizes
from .integers import marked
from .litert.integers import as_integers
from .litert.plain import plain
from .probe_images import IMAGES
from .tools import ONNX2TF, PNNX, Tool

log = logging.getLogger("mindghost")

_COMPILES = "MindSpore compiles the network, which takes some tens of seconds"


@dataclass(frozen=True)
class Source:
    """What files are made of.

    Attributes:
        network: in the form that is deployed.
        target: what the files are to be.
        description: of it.
        folder: for drafts.
    """

    network: nn.Cell
    target: Deployment
    description: Mapping[str, Any]
    folder: Path

    @cached_property
    def text(self) -> str:
        """The description as files have it."""
        return json_text.dumps(self.description)

    @cached_property
    def onnx(self) -> Path:
        """The ONNX file, which others are made from."""
        path = self.folder / "network.onnx"
        log.info(f"onnx: {_COMPILES}")
        _write_onnx(self.network, path, self.target, self.text)
        return path


class Writer(ABC):
    """Writes files of one format.

    Attributes:
        form: the format.
        libraries: packages that it needs, by their names of import.
        tool: the program that converts, where one does.
        free_size: it can write files for images of any height and width.
        integers: it can write a network that was trained for integers.
        embedding: it can write files that give embeddings, too.
    """

    form: ClassVar[Format]
    libraries: ClassVar[tuple[str, ...]] = ()
    tool: ClassVar[Tool | None] = None
    free_size: ClassVar[bool] = False
    integers: ClassVar[bool] = False
    embedding: ClassVar[bool] = False

    def check(self) -> None:
        """Raise UserError where a library is missing."""
        for name in self.libraries:
            try:
                importlib.import_module(name)
            except ImportError as error:
                needed = " ".join(self.libraries)
                raise UserError(
                    f"--format {self.form.name}: {name} is missing ({error}); pip install {needed}, or give --format "
                    "mindir"
                ) from error

    def path(self, folder: Path, stem: str) -> Path:
        """The file that is named, of weights with this stem."""
        return folder / f"{stem}{self.form.infix}{self.form.suffix}"

    def target(self, wanted: Deployment) -> Deployment:
        """What a file of this format is, where `wanted` is asked for. Raises UserError where it cannot be."""
        return wanted

    @abstractmethod
    def write(self, source: Source, path: Path) -> None:
        """Write a file, and those that belong to it. Raises UserError where a converter refuses."""

    def describe(self, path: Path, description: Mapping[str, Any]) -> None:  # noqa: B027  (most have nothing to do)
        """Put a description that is more than that of the source into a file that was written, where it has room."""


class _MindIRWriter(Writer):
    form = MINDIR
    embedding = True
    integers = True

    def write(self, source: Source, path: Path) -> None:
        log.info(f"mindir: {_COMPILES}")
        _write_mindir(source.network, path, source.target, source.text)


class _OnnxWriter(Writer):
    form = ONNX
    libraries = ("onnx", "onnxruntime")
    free_size = True
    embedding = True
    integers = True

    def write(self, source: Source, path: Path) -> None:
        shutil.copyfile(source.onnx, path)


class _OpenVinoWriter(Writer):
    form = OPENVINO
    libraries = ("onnx", "openvino")
    free_size = True
    integers = True

    def write(self, source: Source, path: Path) -> None:
        import openvino

        try:
            contents = openvino_file.contents_of(openvino.Core().read_model(source.onnx.read_bytes()))
        except RuntimeError as error:
            raise UserError(f"--format openvino: {' '.join(str(error).split())[:200]}") from error
        self._put(path, contents)

    def describe(self, path: Path, description: Mapping[str, Any]) -> None:
        contents = [part.read_bytes() for part in self.form.parts(path)]
        self._put(path, openvino_file.described(contents, json_text.dumps(description)))

    def _put(self, path: Path, contents: Sequence[bytes]) -> None:
        for part, content in zip(self.form.parts(path), contents, strict=True):
            part.write_bytes(content)


class _NcnnWriter(Writer):
    form = NCNN
    libraries = ("onnx", "ncnn")
    tool = PNNX

    def target(self, wanted: Deployment) -> Deployment:
        if wanted.batch not in (None, 1):
            raise UserError("--batch_size: ncnn takes one image at a time; leave it out, or give another --format")
        return replace(wanted, batch=1)

    def write(self, source: Source, path: Path) -> None:
        channels, height, width = source.target.input_shape
        shape = f"inputshape=[1,{channels},{height},{width}]f32"
        names = ("network.ncnn.param", "network.ncnn.bin")
        PNNX.run([str(source.onnx), shape, "fp16=0"], source.folder, names)
        layers, weights = (source.folder / name for name in names)
        # pnnx numbers inputs and outputs.
        text = re.sub(r"\bin0\b", "image", re.sub(r"\bout0\b", "logits", layers.read_text(encoding="utf-8")))
        path.write_text(text, encoding="utf-8")
        weights.rename(path.with_suffix(".bin"))


class _LiteRTWriter(Writer):
    form = LITERT
    libraries = ("onnx", "ai_edge_litert")
    tool = ONNX2TF
    integers = True

    def target(self, wanted: Deployment) -> Deployment:
        # Of a batch that is open, the converter makes shapes that are computed anew for each image.
        return replace(wanted, batch=wanted.batch or 1, channels_last=True)

    def write(self, source: Source, path: Path) -> None:
        if source.target.config.quantize_aware is None:
            graph = self._converted(source.onnx, source.folder)
        else:
            import onnx

            numbers = plain(onnx.load(source.onnx))
            onnx.save(numbers.model, network := source.folder / "plain.onnx")
            graph = as_integers(self._converted(network, source.folder), numbers)
        path.write_bytes(litert_file.described(graph, source.text))

    def _converted(self, network: Path, folder: Path) -> bytes:
        made = f"{network.stem}_float32.tflite"
        ONNX2TF.run(["-i", str(network), "-o", str(folder), "-n"], folder, [made])
        return (folder / made).read_bytes()


WRITERS: dict[str, Writer] = {
    writer.form.name: writer
    for writer in (_MindIRWriter(), _OnnxWriter(), _OpenVinoWriter(), _LiteRTWriter(), _NcnnWriter())
}


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

    with in_mode(ms.GRAPH_MODE):
        ms.export(network, example, file_name=str(path), file_format="MINDIR", custom_func=describe)


def _write_onnx(network: nn.Cell, path: Path, target: Deployment, description: str) -> None:
    batch = target.batch or IMAGES
    with in_mode(ms.GRAPH_MODE), fold.plain_operators(network), marked(network) as integers:
        channels, *size = target.input_shape
        example = Tensor(np.zeros((batch, channels, *(onnx_sizes.TRACED if target.free_size else size)), np.float32))
        ms.export(network, example, file_name=str(path), file_format="ONNX")
    entries = {ENTRY: description}
    content = onnx_fixes.tidy(path.read_bytes(), batch, target.batch is None, entries, target.free_size, integers)
    # MindSpore's file is read-only, to all but root.
    path.unlink()
    path.write_bytes(content)
