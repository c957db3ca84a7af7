"""ONNX files, which ONNX Runtime runs.

One may keep weights in a second file: it is taken only if it lies beside the first, under a plain name, with a sha256
of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import intact, paths
from .base import ENTRY, End, Format, Graph, Network
from .parts import messages_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Onnx(Format):
    """ONNX files."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "ONNX Runtime"

    def read(self, path: Path) -> Graph:
        session = session_of(path)
        inputs, outputs = (tuple(map(_end, ends)) for ends in (session.get_inputs(), session.get_outputs()))
        return Graph(inputs, outputs, session.get_modelmeta().custom_metadata_map.get(ENTRY))

    def network(self, path: Path, threads: int = 0) -> Network:
        return self._output(path, threads, 0)

    def embedding(self, path: Path, threads: int = 0) -> Network:
        return self._output(path, threads, 1)

    def _output(self, path: Path, threads: int, index: int) -> Network:
        session = session_of(path, threads)
        name, outputs = session.get_inputs()[0].name, session.get_outputs()[index : index + 1]
        if not outputs:
            raise UserError(f"{path}: carries no embedding; export it again with `mindghost export --embedding`")

        def run(images: NDArray[Any]) -> NDArray[Any]:
            try:
                return session.run([outputs[0].name], {name: images})[0]
            # Its exceptions have no common class but this one.
            except Exception as error:
                raise self.cannot_run(path, error) from error

        return run


ONNX = Onnx()


def session_of(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session for a file, on the CPU, with some threads (0: one a core).

    Raises UserError where the file or the library is not fit, or the file is not the one whose sha256 is beside it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime runs it ({error}); pip install onnx onnxruntime") from error
    content = content_of(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions have no common class but this one.
    except Exception as error:
        raise ONNX.cannot_load(path, error) from error


def content_of(path: Path) -> bytes:
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
    outside = [tensor for tensor in messages_of(model, onnx.TensorProto) if _is_outside(tensor)]
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


def _end(end: Any) -> End:
    kind = "float32" if end.type == "tensor(float)" else end.type
    return End(end.name, kind, tuple(size if isinstance(size, int) else None for size in end.shape))
