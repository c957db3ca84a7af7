"""Exported files, ONNX and MindIR: what is in them, read without trust and before anything runs.

Both are compared with their sha256 beside them where there is one. An ONNX file may keep weights in a second file: it
is taken only if it lies beside the first, under a plain name, with a sha256 of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import intact, outputs, paths, scratch

if TYPE_CHECKING:
    from mindspore import nn

# Endings of exported files.
EXPORTED = (".onnx", ".mindir")
# The entry of an exported file that holds its description.
ENTRY = "ghostnet"

_FLOAT32_OF_MINDIR = 1
# The version, in every description.
_VERSION = b'"ghostnet": "'


@dataclass(frozen=True)
class End:
    """An input or output of a graph.

    Attributes:
        name: in the graph.
        kind: "float32", or another type by its format's word.
        shape: sizes; None for one that is open.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Graph:
    """What an exported file says of itself: its inputs and outputs, and its description (None: it carries none)."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    description: str | None


def is_exported(path: str | Path) -> bool:
    """Whether a file's name says that it is an exported one."""
    return Path(path).suffix.lower() in EXPORTED


def read(path: Path) -> Graph:
    """What is in an exported file. Raises UserError where it is damaged, or a library is missing."""
    try:
        return _read_onnx(path) if path.suffix.lower() == ".onnx" else _read_mindir(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged: a text in it is no UTF-8; export it again") from error


def check_replaceable(files: Iterable[Path], overwrite: bool, source: Path) -> None:
    """Raise UserError where files that are to be written have names of others than exports, and of the source.

    Args:
        files: exported ones, and the descriptions beside them.
        overwrite: replace others, too, but the source.
        source: what they are made of.
    """
    read = outputs.identities([source])
    for file in filter(paths.exists, files):

        def is_own(content: bytes, file: Path = file) -> bool:
            if file.suffix == ".json":
                return outputs.json_with(ENTRY, "source")(content)
            return _VERSION in content and intact.has_digest_of(file, content)

        outputs.Output(file, "--out", is_own, overwrite, read).check()


# --- ONNX


def onnx_session(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session for a file, on the CPU, with some threads (0: one a core).

    Raises UserError where the file or the library is not fit, or the file is not the one whose sha256 is beside it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime runs it ({error}); pip install onnx onnxruntime") from error
    content = onnx_content(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions have no common class but this one.
    except Exception as error:
        raise UserError(f"{path}: ONNX Runtime cannot load it ({_in_short(error)}); export it again") from error


def onnx_content(path: Path) -> bytes:
    """An ONNX file that holds all its weights: those of a second file are put into it.

    ONNX Runtime itself would look for that file in the working folder, and would follow any path to it.
    """
    content = intact.read_intact(path)
    # The key under which a tensor names another file: without it there is none.
    if b"location" not in content:
        return content
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(f"{path}: onnx reads its weights ({error}); pip install onnx onnxruntime") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX file, or a damaged one ({error}); export it again") from error
    outside = [tensor for tensor in _messages(model, onnx.TensorProto) if _is_outside(tensor)]
    files: dict[str, bytes] = {}
    for tensor in outside:
        _take_in(path, tensor, files)
    return model.SerializeToString() if outside else content


def _is_outside(tensor: Any) -> bool:
    return tensor.data_location == tensor.EXTERNAL or len(tensor.external_data) > 0


def _take_in(path: Path, tensor: Any, files: dict[str, bytes]) -> None:
    """Replace a tensor's place in another file by what is there; `files` keeps what was read."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    name = facts.get("location", "")
    if name not in files:
        files[name] = _second_file(path, name)
    whole = files[name]
    try:
        start = int(facts.get("offset", "0"))
        length = int(facts.get("length", str(len(whole) - start)))
    except ValueError:
        start, length = -1, -1
    if start < 0 or length < 0 or start + length > len(whole):
        raise UserError(f"{path}: the place of {tensor.name[:60]!r} in {name} is not in that file; export it again")
    tensor.raw_data = whole[start : start + length]
    del tensor.external_data[:]
    tensor.data_location = tensor.DEFAULT


def _second_file(path: Path, name: str) -> bytes:
    """What a file beside an ONNX file holds. Raises UserError unless its name is plain and its sha256 is there."""
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"{path}: keeps weights in {name[:60]!r}, which is no plain name; export it again as one file")
    second = path.with_name(name)
    if os.path.islink(second):
        raise UserError(f"{path}: keeps weights in {name}, which is a link; put the file itself there")
    paths.check_file(second, f"{path.name} keeps weights in it; restore it, or export it again as one file")
    if not paths.is_file(intact.sidecar(second)):
        raise UserError(
            f"{path}: keeps weights in {name}, and {name}.sha256 is not beside that; export it again as one file, or "
            f"write the digest with sha256sum if {name} is known to be good"
        )
    return intact.read_intact(second)


def _messages(message: Any, kind: type) -> Iterator[Any]:
    """All parts of a protobuf message that are of some kind, wherever they are."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from _messages(part, kind)


def _read_onnx(path: Path) -> Graph:
    session = onnx_session(path)
    inputs, outputs = (tuple(map(_onnx_end, ends)) for ends in (session.get_inputs(), session.get_outputs()))
    return Graph(inputs, outputs, session.get_modelmeta().custom_metadata_map.get(ENTRY))


def _onnx_end(end: Any) -> End:
    kind = "float32" if end.type == "tensor(float)" else end.type
    return End(end.name, kind, tuple(size if isinstance(size, int) else None for size in end.shape))


# --- MindIR


def _read_mindir(path: Path) -> Graph:
    from google.protobuf.message import DecodeError
    from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

    model = ModelProto()
    try:
        model.ParseFromString(intact.read_intact(path))
    except DecodeError as error:
        raise UserError(f"{path}: not a MindIR file, or a damaged one ({error}); export it again") from error
    if any(tensor.HasField("external_data") for tensor in _messages(model, TensorProto)):
        raise UserError(f"{path}: keeps weights in other files, which no digest covers; export it again as one file")
    # A map, or with some versions of MindSpore and protobuf what a map is on disk: a list of keys and values.
    entries = model.user_info
    entries = {entry.key: entry.value for entry in entries} if hasattr(entries, "add") else dict(entries)
    inputs, outputs = (tuple(map(_mindir_end, ends)) for ends in (model.graph.input, model.graph.output))
    return Graph(inputs, outputs, entries.get(ENTRY))


def _mindir_end(end: Any) -> End:
    if len(end.tensor) != 1:
        return End(end.name, "no tensor", ())
    (tensor,) = end.tensor
    kind = "float32" if tensor.data_type == _FLOAT32_OF_MINDIR else f"type {tensor.data_type} of MindIR"
    return End(end.name, kind, tuple(size if size >= 0 else None for size in tensor.dims))


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def mindir_cell(path: Path) -> nn.GraphCell:
    """What a MindIR file holds; raises UserError where it is damaged. It compiles to a graph of its own only."""
    import mindspore as ms
    from mindspore import nn

    intact.read_intact(path)  # the loader takes other numbers for what they are, and dies of other bytes
    try:
        with scratch.readable(path) as file:
            return nn.GraphCell(ms.load(str(file)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: MindSpore cannot load it ({reason}); export it again") from error
