"""OpenVINO's intermediate representation: STEM.xml has the graph, STEM.bin its weights; OpenVINO runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import limits_onednn
from ...errors import UserError
from ...files import intact, paths, scratch
from .base import ENTRY, End, Format, Graph, Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Answers are those of float32 on every processor: OpenVINO itself takes bfloat16 where there is AMX.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}

# What importing mindghost sets for MindSpore's oneDNN; with it, OpenVINO's int8 would do without VNNI. With AMX,
# OpenVINO 2026.4 ends the process (SIGSEGV) in int8 networks with maps of a few pixels, such as ghostnet_050 at 32.
_LIMIT, _MOST = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI"


class OpenVino(Format):
    """OpenVINO's files."""

    name = "openvino"
    suffix = ".xml"
    others = (".bin",)
    runtime = "OpenVINO"

    def read(self, path: Path) -> Graph:
        model = model_of(path)
        description = model.get_rt_info(ENTRY).astype(str) if model.has_rt_info(ENTRY) else None
        return Graph(tuple(map(_end, model.inputs)), tuple(map(_end, model.outputs)), description)

    def network(self, path: Path, threads: int = 0) -> Network:
        import numpy as np
        import openvino

        limit = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        model = model_of(path)
        try:
            with more_instructions():
                compiled = openvino.Core().compile_model(model, "CPU", {**_EXACT, **limit})
        except RuntimeError as error:
            raise self.cannot_load(path, error) from error

        def run(images: NDArray[Any]) -> NDArray[Any]:
            try:
                # The memory of the result is used again by the next call.
                return np.array(compiled(images)[0])
            except (RuntimeError, ValueError) as error:
                raise self.cannot_run(path, error) from error

        return run


OPENVINO = OpenVino()


@contextmanager
def more_instructions() -> Iterator[None]:
    """Inside of `with`, OpenVINO's oneDNN has a limit of its own, unless the user has set one.

    It asks when a process first compiles a network.
    """
    before = os.environ.get(_LIMIT)
    if before is not None and not limits_onednn:
        yield
        return
    os.environ[_LIMIT] = _MOST
    try:
        yield
    finally:
        if before is None:
            del os.environ[_LIMIT]
        else:
            os.environ[_LIMIT] = before


def model_of(path: Path) -> Any:
    """A file, read. Raises UserError where it is damaged, or OpenVINO is missing."""
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"{path}: openvino runs it ({error}); pip install openvino") from error
    weights = path.with_suffix(".bin")
    graph = intact.read_intact(path)
    paths.check_file(weights, f"{path.name} keeps its weights in it; restore it, or export it again")
    try:
        return openvino.Core().read_model(model=graph, weights=intact.read_intact(weights))
    except RuntimeError as error:
        raise OPENVINO.cannot_load(path, error) from error


def described(contents: Sequence[bytes], description: str) -> tuple[bytes, bytes]:
    """A file and its weights with a description in the file; the weights stay as they are."""
    import openvino

    model = openvino.Core().read_model(model=contents[0], weights=contents[1])
    model.set_rt_info(description, ENTRY)
    return contents_of(model)


def contents_of(model: Any, half: bool = False) -> tuple[bytes, bytes]:
    """A model as a file and its weights, `half`: these in float16."""
    import openvino

    with scratch.folder_for_libraries("openvino") as folder:
        path = folder / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _end(end: Any) -> End:
    names = sorted(end.names)
    kind = end.element_type.to_dtype().name
    shape = tuple(None if size.is_dynamic else size.get_length() for size in end.partial_shape)
    return End(names[0] if names else "", kind, shape)
