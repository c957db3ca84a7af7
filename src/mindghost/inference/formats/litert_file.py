"""LiteRT's files (TensorFlow Lite's), which LiteRT runs. Images and maps have their channels last.

Files for microcontrollers take and give int8. They are run by LiteRT's reference operators, which compute what
tflite-micro does; its fast ones round otherwise.

The description lies in a ZIP archive behind the graph, where TensorFlow Lite's metadata keep their files, too.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import intact
from ...files.archives import DAMAGED_ZIP
from ...process import streams
from .base import End, Format, Graph, Network, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The archive's file with the description.
MEMBER = "ghostnet.json"
_ENCRYPTED = 1  # of a member's flags


class LiteRT(Format):
    """LiteRT's files."""

    name = "litert"
    suffix = ".tflite"
    runtime = "LiteRT"
    has_names = False

    def description_beside(self, path: Path) -> Path:
        """See `Format`: beside files of other formats, which take other shapes."""
        return path.with_name(f"{path.name}.json")

    def read(self, path: Path) -> Graph:
        """See `Format.read`; shapes are in the order of all other formats."""
        content = intact.read_intact(path)
        interpreter = _interpreter(path, content, 1)
        ends = (interpreter.get_input_details(), interpreter.get_output_details())
        inputs, outputs = (tuple(map(_end, part)) for part in ends)
        description = _apart(content)[1]
        return Graph(inputs, outputs, None if description is None else description.decode())

    def network(self, path: Path, threads: int = 0) -> Network:
        import numpy as np

        interpreter = _interpreter(path, intact.read_intact(path), threads)
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        into, out = _step(taken), _step(given)

        def run(images: NDArray[Any]) -> NDArray[Any]:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            try:
                interpreter.set_tensor(taken["index"], images if into is None else into.integers(images))
                interpreter.invoke()
                logits = interpreter.get_tensor(given["index"])
            except (RuntimeError, ValueError) as error:
                raise self.cannot_run(path, error) from error
            logits = logits if out is None else out.numbers(logits)
            return logits.transpose(0, 3, 1, 2) if logits.ndim == 4 else logits

        return run


LITERT = LiteRT()


def described(graph: bytes, description: str) -> bytes:
    """A file with its description behind it."""
    archive = io.BytesIO(graph)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as members:
        members.writestr(zipfile.ZipInfo(MEMBER), description.encode())
    return archive.getvalue()


def graph_of(path: Path) -> bytes:
    """A file without what is behind its graph. Raises UserError where it is damaged."""
    return _apart(intact.read_intact(path))[0]


def _apart(content: bytes) -> tuple[bytes, bytes | None]:
    """The graph of a file, and the description behind it; None where `described` has not written one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            end = min((member.header_offset for member in members), default=len(content))
            stored = [m for m in members if m.compress_type == zipfile.ZIP_STORED and not m.flag_bits & _ENCRYPTED]
            found = next((member for member in stored if member.filename == MEMBER), None)
            return content[:end], None if found is None else archive.read(found)
    except DAMAGED_ZIP:
        return content, None


def _interpreter(path: Path, content: bytes, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise UserError(f"{path}: ai-edge-litert runs it ({error}); pip install ai-edge-litert") from error
    try:
        # It says on standard error what computes.
        with streams.libraries_silenced():
            options = {"model_content": content, "num_threads": threads or len(os.sched_getaffinity(0))}
            interpreter = Interpreter(**options)
            if any(map(_step, interpreter.get_input_details())):
                interpreter = Interpreter(**options, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise LITERT.cannot_load(path, error) from error
    return interpreter


def _step(end: Any) -> Step | None:
    """How integers stand for numbers in an input or output; None where it is no int8 with one scale."""
    kept = end["quantization_parameters"]
    if _kind(end) != "int8" or len(kept["scales"]) != 1:
        return None
    return Step(float(kept["scales"][0]), int(kept["zero_points"][0]))


def _kind(end: Any) -> str:
    import numpy as np

    return np.dtype(end["dtype"]).name


def _end(end: Any) -> End:
    shape = tuple(None if size < 0 else int(size) for size in end["shape_signature"])
    if len(shape) == 4:
        shape = (shape[0], shape[3], shape[1], shape[2])
    return End(end["name"], _kind(end), shape, _step(end))
